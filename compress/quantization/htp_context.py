"""Offline compilation of QDQ ONNX files to HTP context binaries.

Compilation runs in a process of its own, so that its memory can be told, and so that a crash in the vendor's library is
an error message and not the end of a run.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compress.quantization.htp import SHARED, HtpTarget, qnn_provider


@dataclass(frozen=True)
class Compiled:
    """What a compilation left: the binary, the small ONNX file that wraps it, QNN's own dump of the graph."""

    binary: Path
    wrapper: Path
    graph_json: Path
    compile_s: float
    peak_rss_gb: float


def compile_context(model: Path, out: Path, target: HtpTarget, timeout_s: float = 3600, name: str = "unet") -> Compiled:
    """Compiles `model` (QDQ ONNX, fixed shapes) for `target` into the folder `out`.

    Writes <name>_<soc>_<hash>.bin, the wrapper of the same name in ONNX, and <name>_qnn_graph.json. The hash is of the
    model and the target. Raises RuntimeError with the compiler's words where it refuses, for example because a node
    has no HTP form (CPU fallback is off).
    """
    return _compile({name: model}, out, target, timeout_s, name)[name]


def compile_shared(
    models: Mapping[str, Path], out: Path, target: HtpTarget, timeout_s: float = 7200, name: str = "shared"
) -> dict[str, Compiled]:
    """Compiles several networks into one binary that holds weights which they have in common once, as a network at
    several resolutions has.

    Writes <name>_<soc>_<hash>.bin and, for every model by its own name, <model>_<soc>_<hash>.onnx, which wraps that
    binary, and <model>_qnn_graph.json. The x86 emulator crashes on such a binary, so that its wrappers are refused
    there: to emulate a network, compile it alone, which makes the same graph.
    """
    return _compile(models, out, target, timeout_s, name)


def _compile(
    models: Mapping[str, Path], out: Path, target: HtpTarget, timeout_s: float, name: str
) -> dict[str, Compiled]:
    qnn_provider()
    digest = hashlib.sha256()
    for model in models.values():
        digest.update(model.read_bytes())
    digest.update(json.dumps(asdict(target), sort_keys=True).encode())
    ending = f"{target.soc}_{digest.hexdigest()[:8]}"
    with tempfile.TemporaryDirectory(prefix="htp-", dir=out) as scratch:
        paths = {model: str(path.resolve()) for model, path in models.items()}
        request = {"models": paths, "folder": scratch, **asdict(target)}
        command = [sys.executable, "-m", "compress.quantization.htp_compile", json.dumps(request)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode != 0:
            words = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
            files = ", ".join(path.name for path in models.values())
            raise RuntimeError(f"the HTP compiler ended with {done.returncode} on {files}:\n{words}")
        measured = json.loads(done.stdout.strip().splitlines()[-1])
        binary = out / f"{name}_{ending}.bin"
        found = {
            model: Compiled(
                binary,
                out / f"{model}_{ending}.onnx",
                out / f"{model}_qnn_graph.json",
                measured["compile_s"][model],
                measured["peak_rss_gb"],
            )
            for model in models
        }
        for label, compiled in found.items():
            _collect(Path(scratch), label, compiled, len(models) > 1)
        return found


def _collect(scratch: Path, model: str, compiled: Compiled, shared: bool) -> None:
    """Moves the compiler's files to their names; the wrapper has to name its binary."""
    import onnx

    wrapper = onnx.load(scratch / f"{model}.onnx")
    contexts = [node for node in wrapper.graph.node if node.op_type == "EPContext"]
    if len(contexts) != 1:
        raise RuntimeError(f"the HTP compiler split the network into {len(contexts)} parts")
    cached: Any
    (cached,) = [attribute for attribute in contexts[0].attribute if attribute.name == "ep_cache_context"]
    made = scratch / cached.s.decode()
    if made.exists():  # of a shared binary only the first wrapper still finds it
        made.rename(compiled.binary)
    cached.s = compiled.binary.name.encode()
    if shared:
        onnx.helper.set_model_props(wrapper, {SHARED: "1"})
    onnx.save(wrapper, compiled.wrapper)
    (dump,) = [file for file in (scratch / f"dump-{model}").glob("*.json") if not file.stem.endswith("_tensor_log")]
    dump.rename(compiled.graph_json)
