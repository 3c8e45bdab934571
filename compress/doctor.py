"""Looks at the machine: packages, processor, memory, GPU, HTP compiler, disk, weights. Changes nothing."""

from __future__ import annotations

import configparser
import importlib.metadata
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from compress import provenance

SETUP = provenance.REPOSITORY / "setup.cfg"
FREE_DISK_GB, MEMORY_GB = 5.0, 6.0


class State(Enum):
    """How a finding stands: all is well, worth knowing, or something will not work."""

    GOOD = "ok"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    state: State
    check: str
    value: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """All findings, the cheap ones first."""
    yield from packages()
    yield processor()
    yield memory()
    yield from folders(Path.cwd())
    yield teacher()
    yield from arithmetic()
    yield htp()


def packages(setup: Path = SETUP) -> Iterator[Finding]:
    """Every dependency that setup.cfg asks for on this platform, with the version found."""
    from packaging.requirements import Requirement

    yield Finding(State.GOOD, "python", sys.version.split()[0])
    parser = configparser.ConfigParser()
    parser.read(setup)
    for line in parser["options"]["install_requires"].split("\n"):
        if not line or line.startswith("#"):
            continue
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate():
            yield Finding(State.NOTE, wanted.name, "not made for this platform", "Its runtime cannot be used here.")
            continue
        try:
            found = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(State.BAD, wanted.name, "not installed", "make venv")
            continue
        good = wanted.specifier.contains(found, prereleases=True)
        remedy = "" if good else f"{wanted.specifier} is needed: make venv"
        yield Finding(State.GOOD if good else State.BAD, wanted.name, found, remedy)


def processor() -> Finding:
    """Name and usable cores; one core works, slowly."""
    facts = provenance.machine()
    value = f"{facts['processor']}, {facts['cores']} cores"
    if facts["cores"] >= 2:
        return Finding(State.GOOD, "processor", value)
    return Finding(State.NOTE, "processor", value, "Times in the recipes are for 2 cores.")


def memory() -> Finding:
    """Total memory, and what `make run` peaks at."""
    total_gb = provenance.machine()["memory_gb"]
    if total_gb >= MEMORY_GB:
        return Finding(State.GOOD, "memory", f"{total_gb} GB")
    return Finding(State.NOTE, "memory", f"{total_gb} GB", f"{MEMORY_GB:.0f} GB or more are recommended.")


def folders(here: Path) -> Iterator[Finding]:
    """Free disk space, and whether runs and temporary files can be written."""
    free_gb = shutil.disk_usage(here).free / 1e9
    state = State.GOOD if free_gb >= FREE_DISK_GB else State.NOTE
    remedy = "" if state is State.GOOD else f"A run takes up to {FREE_DISK_GB:.0f} GB."
    yield Finding(state, "free disk", f"{free_gb:.1f} GB in {here}", remedy)
    for name, folder in (("runs", here / "runs"), ("temporary files", Path(tempfile.gettempdir()))):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        writable = existing.is_dir() and os.access(existing, os.W_OK)
        remedy = "" if writable else "Change its owner, or use another folder (--runs, TMPDIR)."
        value = f"{folder} {'can' if writable else 'cannot'} be written"
        yield Finding(State.GOOD if writable else State.BAD, name, value, remedy)


def teacher() -> Finding:
    """Whether the teacher that the recipes start from is there and whole."""
    from compress.artifact import CARD, verify
    from compress.errors import UserError

    root = provenance.REPOSITORY / "teachers" / "weights"
    found = sorted(path.parent for path in root.glob(f"*/{CARD}"))
    if not found:
        return Finding(State.BAD, "teacher", f"none in {root}", "git checkout -- teachers, or train teacher_scenes")
    try:
        names = [verify(folder).key[:8] + f" in {folder.name}" for folder in found]
    except UserError as error:
        return Finding(State.BAD, "teacher", str(error.problems[0].what), error.problems[0].remedy)
    return Finding(State.GOOD, "teacher", ", ".join(names))


def arithmetic() -> Iterator[Finding]:
    """Threads, GPU, and how much faster bf16 is than fp32 here."""
    import torch

    yield Finding(State.GOOD, "threads", str(torch.get_num_threads()))
    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        yield Finding(State.GOOD, "gpu", f"{facts.name}, {facts.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}")
    else:
        yield Finding(State.NOTE, "gpu", "none", "Not needed; scenes_full takes hours instead of minutes without.")
    ratio = matmul_s(torch.float32) / matmul_s(torch.bfloat16)
    remedy = "" if ratio > 1 else "Use --<stage>.precision fp32: this processor has no bf16 units."
    yield Finding(State.GOOD if ratio > 1 else State.NOTE, "bf16", f"{ratio:.1f} x the speed of fp32", remedy)


def matmul_s(dtype: object, side: int = 512, repeats: int = 8) -> float:
    """Seconds of one square matrix product on the processor, the best of several."""
    import torch

    x = torch.ones(side, side, dtype=dtype)  # type: ignore[call-overload]
    times = []
    for _ in range(repeats):
        start_s = time.perf_counter()
        x @ x
        times.append(time.perf_counter() - start_s)
    return min(times)


def htp() -> Finding:
    """Whether the HTP compiler and emulator are here and right: one quantized op, compiled and run."""
    remedy = "Stages quantize and deploy need onnxruntime-qnn, which exists for Linux and Windows on x86-64."
    try:
        error_db = one_op_on_htp()
    except Exception as error:  # any failure in the vendor's library is a finding, not a crash of the doctor
        return Finding(State.NOTE, "htp", f"not usable ({type(error).__name__}: {error})", remedy)
    good = error_db > 50
    value = f"compiles for V75; emulator agrees with arithmetic to {error_db:.0f} dB"
    return Finding(State.GOOD if good else State.BAD, "htp", value, "" if good else "Reinstall onnxruntime-qnn.")


def one_op_on_htp() -> float:
    """SQNR in dB of x + x in uint16 on the emulator. Raises whatever the runtime raises where it cannot be used."""
    import numpy as np

    from compress.quantization.htp import HtpTarget, session

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "doubling.onnx"
        model.write_bytes(doubling_model())
        x = np.linspace(-1, 1, 8, dtype=np.float32)[None]
        (made,) = session(model, HtpTarget()).run(None, {"x": x})
        return float(10 * np.log10(((2 * x) ** 2).mean() / ((made - 2 * x) ** 2).mean().clip(1e-20)))


def doubling_model() -> bytes:
    """An ONNX graph that adds its input (1, 8) to itself between uint16 quantizers."""
    from onnx import TensorProto, helper

    def quantized(name: str) -> list:
        grid = ["scale", "zero"]
        quantize = helper.make_node("QuantizeLinear", [name, *grid], [f"{name}_q"])
        return [quantize, helper.make_node("DequantizeLinear", [f"{name}_q", *grid], [f"{name}_d"])]

    nodes = [*quantized("x"), helper.make_node("Add", ["x_d", "x_d"], ["y"]), *quantized("y")]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in ("x", "y_d")]
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [1e-4])
    zero = helper.make_tensor("zero", TensorProto.UINT16, [], [32768])
    graph = helper.make_graph(nodes, "doubling", ends[:1], ends[1:], [scale, zero])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
