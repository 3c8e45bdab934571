"""How long the report of 1,000 synthetic trials takes to build, and to appear in a headless Chromium.

    python -m tests.benchmarks.study_report [--trials 1000] [--pictures 60] [--opens 5] [--shots FOLDER]

Prints one line of JSON. The bars: build_s <= 20, first_paint_ms <= 2000, console_errors empty. Wall times depend on
what else the machine does, so processor time stands beside the build's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from reports.study.html import write_study
from tests.reports.chromium import BINARY, READY, Chromium
from tests.reports.synthetic_study import make_study

SHOTS = ("#front", "#space", "#progress", "#timeline")


def main() -> None:
    """Builds, opens, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--pictures", type=int, default=60, help="trials of the front that have run folders")
    parser.add_argument("--opens", type=int, default=5, help="first paint is the median over this many")
    parser.add_argument("--shots", type=Path, help="also save screenshots here, in light and dark")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        folder = make_study(Path(work), options.trials, pictures=options.pictures)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        page = write_study(folder)
        found: dict[str, Any] = {
            "trials": options.trials,
            "build_s": round(time.perf_counter() - wall_s, 2),
            "build_cpu_s": round(time.process_time() - cpu_s, 2),
            "page_mb": round(page.stat().st_size / 1e6, 2),
        }
        if BINARY:
            found |= opened(page, Path(work), options.opens, options.shots)
    print(json.dumps(found))


def opened(page: Path, work: Path, opens: int, shots: Path | None) -> dict[str, Any]:
    """First paint in ms and what the console said, over several loads of the page."""
    paints_ms = []
    with Chromium(work / "profile") as browser:
        for _ in range(opens):
            browser.open(page, READY)
            paints_ms.append(browser.first_paint_ms())
        for scheme in ("light", "dark") if shots else ():
            assert shots is not None
            shots.mkdir(parents=True, exist_ok=True)
            browser.open(page, READY, scheme)
            browser.picture(shots / f"study-{scheme}.png")
            for part in SHOTS:
                browser.picture(shots / f"study-{scheme}-{part[1:]}.png", part)
        paints = {
            "first_paint_ms": round(statistics.median(paints_ms)),
            "first_paints_ms": [round(p) for p in paints_ms],
        }
        return paints | {"console_errors": list(browser.errors)}


if __name__ == "__main__":
    main()
