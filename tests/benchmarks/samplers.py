"""A sampler against random search: hypervolume after equal numbers of trials, over several seeds.

    python -m tests.benchmarks.samplers --sweep scenes_ratio --trials 24 --samplers gp random --seeds 0 1 2

runs `pocketdiff sweep` for every sampler and seed, in a folder of runs each under --runs, and prints a table. Studies
share artefacts and the scores of criteria, so a student that two of them draw is made once; the same command again
continues.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path


def hypervolume(options: argparse.Namespace, sampler: str, seed: int) -> float:
    """Runs one study to its end, or finds it there."""
    runs, cache = options.runs / f"{sampler}_{seed}", (options.runs / ".cache").resolve()
    runs.mkdir(parents=True, exist_ok=True)
    cache.mkdir(exist_ok=True)
    if not (runs / ".cache").exists():
        (runs / ".cache").symlink_to(cache)
    command = [sys.executable, "-m", "compress.cli", "sweep", options.sweep, "--json"]
    command += ["--trials", str(options.trials), "--workers", str(options.workers)]
    command += ["--sampler", sampler, "--seed", str(seed)]
    command += ["--runs", str(runs)]
    command += ["--artefacts", f"file://{(options.runs / 'artefacts').resolve()}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["hypervolume"])


def main() -> None:
    """Prints a row a sampler: every seed's hypervolume, mean and standard deviation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", default="scenes_ratio")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--samplers", nargs="+", default=["gp", "random"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/samplers"))
    options = parser.parse_args()
    found: dict[str, list[float]] = {sampler: [] for sampler in options.samplers}
    for seed in options.seeds:
        for sampler in options.samplers:
            found[sampler].append(hypervolume(options, sampler, seed))
            print(f"{sampler}, seed {seed}: {found[sampler][-1]:.4f}", file=sys.stderr, flush=True)
    print(f"| sampler | {' | '.join(f'seed {seed}' for seed in options.seeds)} | mean | deviation |")
    print("|" + "---|" * (len(options.seeds) + 3))
    for sampler, volumes in found.items():
        spread = statistics.stdev(volumes) if len(volumes) > 1 else 0.0
        cells = [*volumes, statistics.fmean(volumes), spread]
        print(f"| {sampler} | {' | '.join(f'{cell:.4f}' for cell in cells)} |")


if __name__ == "__main__":
    main()
