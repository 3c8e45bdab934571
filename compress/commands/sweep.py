"""`pocketdiff sweep SWEEP`: searches, and prints what came out best."""

from __future__ import annotations

import argparse
from pathlib import Path

from compress.progress import make_console
from compress.sweep import folder_of, load_sweep, overridden, pareto_table, run_sweep


def main(options: argparse.Namespace) -> int:
    """Runs trials until there are enough, then prints the Pareto front."""
    sweep, runs = overridden(load_sweep(options.sweep), options.overrides), Path(options.runs)
    study = run_sweep(sweep, runs, options.trials, options.seed, options.device)
    console = make_console()
    console.print(f"{sweep.description}\nBest of {len(study.trials)} trials in {folder_of(sweep, runs)}:")
    console.print(pareto_table(study, sweep))
    return 0
