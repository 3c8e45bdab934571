"""`pocketdiff bench SUBJECT`: how long something takes and how much memory, on inputs that are made for it."""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from compress.errors import UserError
from compress.progress import make_console, make_progress


def main(options: argparse.Namespace) -> int:
    """Measures, and prints one line of JSON or a few sentences."""
    measure = {"surgery": _surgery, "quantize": _quantize}[options.subject]
    with tempfile.TemporaryDirectory(prefix="pocketdiff-bench-", dir=options.work) as work:
        found, words = measure(Path(work), options)
    if options.json:
        print(json.dumps(found))
    else:
        make_console().print(words)
    return 0


def _surgery(work: Path, options: argparse.Namespace) -> tuple[dict, str]:
    from compress.benchmarks.surgery import surgery

    if options.shards < 1:
        raise UserError.of(f"shards is {options.shards}", "--shards", "Give 1 or more.")
    found = surgery(work, options.scale, options.dtype, options.shards, options.criterion, options.layer_rule)
    words = (
        f"{found.parameters:,} parameters in {found.wall_s:.1f} s with {found.peak_rss_gb:.2f} GB of memory; "
        f"reading the teacher's file takes {found.read_s:.1f} s"
    )
    return asdict(found), words


def _quantize(work: Path, options: argparse.Namespace) -> tuple[dict, str]:
    from compress.benchmarks.quantization import quantization

    progress = make_progress()
    try:
        found = quantization(work, options.scale, options.px, options.soc, options.emulate, progress)
    finally:
        progress.close()
    return found.as_json(), found.words()
