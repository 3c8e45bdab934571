"""Facts for the card: who made this artefact, on what, with which versions, in how much time and memory."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import threading
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from compress.memory import peak_rss_gb, reset_peak_rss

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "lightning",
    "torch-pruning",
    "nncf",
    "aimet-torch",
    "aimet-onnx",
    "optuna",
    "onnxruntime",
    "onnxruntime-qnn",
)
_BEAT_S = 1.0


def versions() -> dict[str, str]:
    """Package -> installed version, for the packages that decide results; packages not installed are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def git_commit() -> str | None:
    """The repository's commit, with "+changes" when tracked files differ from it; None outside a git checkout.

    Asked once: a process goes on with the code that it has loaded, and in a fresh clone, whose files are as new as the
    index, git reads all of them for every answer.
    """

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(REPOSITORY), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def machine(device: str = "cpu") -> dict[str, Any]:
    """Processor, usable cores, memory in GB and, for a GPU run, the GPU's name."""
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "device": device,
    }
    if device.startswith("cuda"):
        import torch

        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


class Meter:
    """Measures wall time in seconds and peak resident memory in GB of a `with` block, over all attempts at it.

    A heartbeat keeps the figures in `file`, so that what a killed attempt spent is counted by the next one.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._before_s, self._before_gb = 0.0, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    @property
    def wall_s(self) -> float:
        return self._before_s + time.monotonic() - self._start

    @property
    def peak_rss_gb(self) -> float:
        return max(self._before_gb, peak_rss_gb())

    def __enter__(self) -> Meter:
        try:
            earlier = json.loads(self._file.read_text())
            self._before_s, self._before_gb = float(earlier["wall_s"]), float(earlier["peak_rss_gb"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # the first attempt, or one killed while it wrote
        reset_peak_rss()
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while True:
            stopped = self._stop.wait(_BEAT_S)
            temporary = self._file.with_suffix(".tmp")
            try:
                temporary.write_text(json.dumps({"wall_s": self.wall_s, "peak_rss_gb": self.peak_rss_gb}))
                os.replace(temporary, self._file)
            except OSError:
                return  # a full or vanished disk is reported by the stage itself, not by its stopwatch
            if stopped:
                return


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
