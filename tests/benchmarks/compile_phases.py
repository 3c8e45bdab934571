"""Where the HTP compiler's time goes, phase by phase, as its own profile tells.

    python -m tests.benchmarks.compile_phases --scale small --px 256 512 [--mode 2]

compiles a network of `pocketdiff bench quantize` at each size and prints seconds in all and of every phase that takes
a second or more. "small" has DreamLite's topology with 8 M parameters.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from compress.benchmarks.quantization import SCALES
from compress.quantization.htp import HtpTarget, session
from tests.benchmarks.compile_memory import written

MICROSECONDS = 1e6
COLUMNS = {"seconds": 2, "phase": 6}  # of the profile, whose header names no units


def phases(model: Path, folder: Path, target: HtpTarget) -> dict[str, float]:
    """Seconds in all, and of every phase."""
    profile = folder / "profile.csv"
    options = {
        "ep__context_enable": "1",
        "ep__context_embed_mode": "0",
        "ep__context_file_path": str(folder / "context.onnx"),
        "qnn__profiling_level": "detailed",
        "qnn__profiling_file_path": str(profile),
    }
    began = time.perf_counter()
    session(model, target, **options)
    found = {"in all": time.perf_counter() - began}
    with profile.open(newline="") as file:
        for row in list(csv.reader(file))[1:]:
            found[row[COLUMNS["phase"]]] = int(row[COLUMNS["seconds"]]) / MICROSECONDS
    return {name: seconds for name, seconds in found.items() if seconds >= 1}


def main() -> None:
    """Prints a line a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=sorted(SCALES), default="small")
    parser.add_argument("--px", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--mode", type=int, default=3, help="the compiler's optimization mode")
    options = parser.parse_args()
    for px in options.px:
        with tempfile.TemporaryDirectory() as folder:
            model = written(SCALES[options.scale](), px, Path(folder))
            found = phases(model, Path(folder), replace(HtpTarget(), optimization_mode=options.mode))
        print(f"{px} px: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in found.items()), flush=True)


if __name__ == "__main__":
    main()
