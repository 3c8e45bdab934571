"""Offline compilation of a QDQ ONNX file to an HTP context binary, and sessions on the x86 emulator of the HTP.

Both come in the onnxruntime-qnn wheel: no phone, no SDK and no account. Compilation runs in a process of its own, so
that its memory can be told, and so that a crash in the vendor's library is an error message and not the end of a run.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from compress.errors import UserError

# Snapdragon by QNN's soc_model: (name of the chip, HTP generation). Those that compiled and ran right here.
SOCS = {43: ("sm8550", 73), 57: ("sm8650", 75), 69: ("sm8750", 79), 87: ("sm8850", 81)}
CHIPS = {"8gen2": 43, "8gen3": 57, "8elite": 69, "8elite_gen5": 87}  # by the names that people use
OPTIMIZATION_MODES = (2, 3)
WHY_NOT_MODE_1 = (
    "mode 1 computes wrong results for four-dimensional maps (a SiLU at 0 dB, measured on the emulator); use 3"
)


@dataclass(frozen=True)
class HtpTarget:
    """What to compile for: QNN's SoC number and how hard the graph is optimized. Default: Snapdragon 8 Gen 3, V75."""

    soc_model: int = 57
    optimization_mode: int = 3

    def __post_init__(self) -> None:
        if self.soc_model not in SOCS:
            known = ", ".join(f"{soc} ({name}, V{arch})" for soc, (name, arch) in SOCS.items())
            raise UserError.of(f"soc_model is {self.soc_model}", "HTP target", f"Use one of {known}.")
        if self.optimization_mode not in OPTIMIZATION_MODES:
            raise UserError.of(f"optimization_mode is {self.optimization_mode}", "HTP target", WHY_NOT_MODE_1 + ".")

    @property
    def soc(self) -> str:
        return SOCS[self.soc_model][0]

    @property
    def arch(self) -> int:
        """HTP generation, 75 for V75."""
        return SOCS[self.soc_model][1]

    def provider_options(self) -> dict[str, str]:
        return {
            "soc_model": str(self.soc_model),
            "htp_arch": str(self.arch),
            "htp_graph_finalization_optimization_mode": str(self.optimization_mode),
        }


@dataclass(frozen=True)
class Compiled:
    """What a compilation left: the binary, the small ONNX file that wraps it, QNN's own dump of the graph."""

    binary: Path
    wrapper: Path
    graph_json: Path
    compile_s: float
    peak_rss_gb: float


@cache
def qnn_provider() -> tuple[Any, str]:
    """The QNN device of onnxruntime, registered once a process, and the path of its HTP backend.

    Raises UserError on platforms for which the wheel does not exist or is not installed.
    """
    try:
        import onnxruntime
        import onnxruntime_qnn  # type: ignore[import-untyped]
    except ImportError as error:
        raise UserError.of(
            f"onnxruntime-qnn cannot be imported on {platform.system()} {platform.machine()} ({error})",
            "HTP compiler and emulator",
            "On Linux x86-64 (glibc 2.35 or newer) or Windows: pip install onnxruntime-qnn. Elsewhere stop before "
            "deploy with --until quantize and use the ONNX file.",
        ) from error
    name = onnxruntime_qnn.get_ep_name()
    if name not in {device.ep_name for device in onnxruntime.get_ep_devices()}:
        onnxruntime.register_execution_provider_library(name, onnxruntime_qnn.get_library_path())
    device = next(device for device in onnxruntime.get_ep_devices() if device.ep_name == name)
    return device, onnxruntime_qnn.get_qnn_htp_path()


def session(model: Path, target: HtpTarget, **config: str) -> Any:
    """An inference session on the HTP backend alone: with one node that it does not take, this raises.

    `config` are session options ("ep.context_enable" written `ep__context_enable`) or, with the prefix `qnn__`,
    options of the provider.
    """
    import onnxruntime

    device, backend = qnn_provider()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    provider = {"backend_path": backend, **target.provider_options()}
    for name, value in config.items():
        if name.startswith("qnn__"):
            provider[name.removeprefix("qnn__")] = value
        else:
            options.add_session_config_entry(name.replace("__", "."), value)
    options.add_provider_for_devices([device], provider)
    return onnxruntime.InferenceSession(str(model), options)


def compile_context(model: Path, out: Path, target: HtpTarget, timeout_s: float = 3600, name: str = "unet") -> Compiled:
    """Compiles `model` (QDQ ONNX, fixed shapes) for `target` into the folder `out`.

    Writes <name>_<soc>_<hash>.bin, the wrapper of the same name in ONNX, and <name>_qnn_graph.json. The hash is of the
    model and the target. Raises RuntimeError with the compiler's words where it refuses, for example because a node
    has no HTP form (CPU fallback is off).
    """
    qnn_provider()
    settings = json.dumps(asdict(target), sort_keys=True).encode()
    stem = f"{name}_{target.soc}_{hashlib.sha256(model.read_bytes() + settings).hexdigest()[:8]}"
    with tempfile.TemporaryDirectory(prefix="htp-", dir=out) as scratch:
        request = {"model": str(model.resolve()), "folder": scratch, **asdict(target)}
        command = [sys.executable, "-m", "compress.quantization.htp_compile", json.dumps(request)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode != 0:
            words = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
            raise RuntimeError(f"the HTP compiler ended with {done.returncode} on {model.name}:\n{words}")
        measured = json.loads(done.stdout.strip().splitlines()[-1])
        files = (out / f"{stem}.bin", out / f"{stem}.onnx", out / f"{name}_qnn_graph.json")
        return _collect(Path(scratch), Compiled(*files, **measured))


def _collect(scratch: Path, compiled: Compiled) -> Compiled:
    """Moves the compiler's files to their names; the wrapper has to name its binary."""
    import onnx

    wrapper = onnx.load(scratch / "context.onnx")
    contexts = [node for node in wrapper.graph.node if node.op_type == "EPContext"]
    if len(contexts) != 1:
        raise RuntimeError(f"the HTP compiler split the network into {len(contexts)} parts")
    (cache_attribute,) = [attribute for attribute in contexts[0].attribute if attribute.name == "ep_cache_context"]
    (scratch / cache_attribute.s.decode()).rename(compiled.binary)
    cache_attribute.s = compiled.binary.name.encode()
    onnx.save(wrapper, compiled.wrapper)
    (dump,) = [file for file in (scratch / "dump").glob("*.json") if not file.name.endswith("_tensor_log.json")]
    dump.rename(compiled.graph_json)
    return compiled
