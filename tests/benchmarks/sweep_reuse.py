"""How much sooner a sweep's trials are done than the same trials would be that share nothing.

    pocketdiff sweep scenes_ratio --trials 24 --workers 2
    python -m tests.benchmarks.sweep_reuse [--sweep scenes_ratio] [--count 6] [--workers 2] [--runs runs]

carries out some trials of the finished study again, as many side by side as the sweep had workers, each in a process of
its own with an empty folder of runs and an empty cache, and prints one line of JSON: seconds a trial takes of a
worker's time, with reuse (over the whole study, from its first trial's start to its last one's end) and without; there
Python's imports are left out.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import optuna

from compress.pipeline import run
from compress.plan import Options
from compress.progress import LineProgress
from compress.sweep import folder_of, load_sweep
from compress.sweep.study import find_study


def prepare() -> None:
    """What a worker of a sweep has done before its second trial."""
    import compress.stages.prune  # noqa: F401


def alone(sweep: str, params: dict[str, Any]) -> float:
    """Seconds of one trial that finds nothing."""
    recipe = load_sweep(sweep).sample(optuna.trial.FixedTrial(params))
    with tempfile.TemporaryDirectory(prefix="pocketdiff-bench-") as work:
        began_s = time.perf_counter()
        run(recipe, Options(Path(work) / "trial", Path(work)), LineProgress(io.StringIO()))
        return time.perf_counter() - began_s


def main() -> None:
    """Prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", default="scenes_ratio")
    parser.add_argument("--count", type=int, default=6, help="trials that are carried out again")
    parser.add_argument("--workers", type=int, default=2, help="as many as the sweep had")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    sweep = load_sweep(options.sweep)
    trials = find_study(sweep, folder_of(sweep, options.runs), None).get_trials(deepcopy=False)
    done = sorted((t for t in trials if t.state.name == "COMPLETE"), key=lambda trial: trial.number)
    starts = [trial.datetime_start for trial in done if trial.datetime_start]
    ends = [trial.datetime_complete for trial in done if trial.datetime_complete]
    shared_s = options.workers * (max(ends) - min(starts)).total_seconds() / len(done)
    chosen = [done[place * len(done) // options.count] for place in range(options.count)]
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // options.workers))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, spawn, prepare, max_tasks_per_child=1) as pool:
        jobs = [pool.submit(alone, options.sweep, trial.params) for trial in chosen]
        found = {str(trial.number): round(job.result(), 1) for trial, job in zip(chosen, jobs, strict=True)}
    alone_s = statistics.fmean(found.values())
    line = {"trials": len(done), "with_reuse_s": round(shared_s, 1), "without_s": round(alone_s, 1)}
    print(json.dumps(line | {"ratio": round(alone_s / shared_s, 2), "each_without_s": found}))


if __name__ == "__main__":
    main()
