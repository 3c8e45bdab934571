"""How much faster four workers are than one, on trials that only wait: what sharing, locking and the study cost.

    python -m tests.benchmarks.sweep_workers [--nap-s 2] [--trials 8] [--storage URL]

Throughput is finished trials over the time from the first trial's start to the last one's end, so the seconds that
Python takes to start do not count. `--trials` is a worker's, so four workers do four times as many.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import optuna

from compress.sweep.storage import open_storage
from tests.sleeper import write_recipe

ROOT = Path(__file__).resolve().parent.parent.parent


def trials_per_s(folder: Path, workers: int, trials: int, nap_s: float, storage: str | None) -> float:
    """Runs a sweep of its own and reads the times off the study."""
    name = f"naps_{workers}"
    write_recipe(folder, name, nap_s=nap_s / 2, grid=True, shared=False)  # two stages a trial; none is shared
    command = [sys.executable, "-m", "compress.cli", "sweep", f"{name}.py"]
    command += ["--trials", str(trials), "--workers", str(workers), "--json"]
    command += ["--storage", storage] if storage else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    study = optuna.load_study(study_name=name, storage=open_storage(storage, folder / "runs" / "sweeps" / name))
    starts = [trial.datetime_start for trial in study.trials if trial.datetime_start]
    ends = [trial.datetime_complete for trial in study.trials if trial.datetime_complete]
    return trials / (max(ends) - min(starts)).total_seconds()


def main() -> None:
    """Prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nap-s", type=float, default=2.0, help="length of a trial")
    parser.add_argument("--trials", type=int, default=8, help="of each worker")
    parser.add_argument("--storage", help="default: a journal")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pocketdiff-bench-") as work:
        found = {}
        for workers in (1, 4):
            total = workers * options.trials
            found[workers] = trials_per_s(Path(work), workers, total, options.nap_s, options.storage)
    line = {f"trials_per_s_{workers}": round(rate, 4) for workers, rate in found.items()}
    print(json.dumps(line | {"ratio": round(found[4] / found[1], 3)}))


if __name__ == "__main__":
    main()
