"""Pruning SDXL's U-Net to DreamLite's as a stream, at full size: the whole command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from compress.config.stream import CRITERIA as WEIGHT_CRITERIA
from compress.config.stream import LAYER_RULES as WEIGHT_LAYER_RULES
from compress.errors import UserError

_BUFFER = 16 << 20
_SAMPLES = 8
# At scale "small" the teacher has SDXL's topology and narrow stages, so the student has to be narrower still.
_STUDENTS = {
    "full": [],
    "small": ["--prune.widths", "[64, 64, 128]", "--prune.transformer_layers", "[1, 2, 2]", "--prune.cross_dim", "128"],
}


@dataclass(frozen=True)
class Surgery:
    """`read_s` is reading the teacher's file once, when the system's cache holds it; `wall_s` and `peak_rss_gb` are of
    the whole command in a process of its own, interpreter and libraries included."""

    parameters: int
    wall_s: float
    read_s: float
    peak_rss_gb: float


def surgery(work: Path, scale: str, dtype: str, shards: int, criterion: str, layer_rule: str | None = None) -> Surgery:
    """`pocketdiff run dreamlite_sdxl --until prune` on a teacher of random weights, which is written into `work`."""
    from compress.pruning.stream.files import open_checkpoint
    from compress.pruning.stream.noise import SCALES, write_teacher
    from compress.pruning.stream.samples import write_random_samples

    teacher = work / "teacher"
    write_teacher(teacher, SCALES[scale](), dtype, shards)
    files = open_checkpoint(teacher / "unet").files
    read(files)
    read_s = read(files)
    arguments = ["run", "dreamlite_sdxl", "--until", "prune", "--runs", str(work / "runs"), "--device", "cpu"]
    arguments += ["--teacher.path", str(teacher), "--prune.criterion", criterion, *_STUDENTS[scale]]
    if layer_rule is not None:
        arguments += ["--prune.layer_rule", layer_rule]
    if criterion not in WEIGHT_CRITERIA or layer_rule not in (None, *WEIGHT_LAYER_RULES):
        write_random_samples(teacher, SCALES[scale](), _SAMPLES, side=64 if scale == "full" else 16)
        arguments += ["--prune.calibrated", "true", "--prune.calibration_samples", str(_SAMPLES)]
    began = time.monotonic()
    peak_rss_gb = in_a_process(arguments)
    wall_s = time.monotonic() - began
    student = open_checkpoint(work / "runs/dreamlite_sdxl/10-prune/unet")
    parameters = sum(entry.count for entry in student.entries.values())
    return Surgery(parameters, round(wall_s, 2), round(read_s, 2), round(peak_rss_gb, 3))


def read(files: list[Path]) -> float:
    """Seconds to read the files once, into one buffer."""
    memory = memoryview(bytearray(_BUFFER))
    began = time.monotonic()
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(memory):
                pass
    return time.monotonic() - began


def in_a_process(arguments: list[str]) -> float:
    """Runs `pocketdiff` with these arguments; returns its peak resident memory in GB, by the system's own account."""
    command = [sys.executable, "-m", "compress.cli", *arguments]
    # A fork starts with the memory of its parent, so the parent must be small: posix_spawn shares it without counting.
    child = subprocess.Popen(command, stdout=sys.stderr, close_fds=False)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        what = f"the command under measurement ended with exit code {child.returncode}"
        raise UserError.of(what, "bench surgery", "See its message above.")
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss * unit / 1e9
