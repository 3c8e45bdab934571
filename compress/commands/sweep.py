"""`pocketdiff sweep SWEEP`: searches, and prints what came out best; of a grid, what every combination came to."""

from __future__ import annotations

import argparse
from pathlib import Path

from compress.progress import make_console
from compress.sweep import folder_of, load_sweep, overridden, run_sweep
from compress.sweep_tables import grid_rows, grid_table, pareto_table

TABLE = "table.md"


def main(options: argparse.Namespace) -> int:
    """Runs trials until there are enough, then prints the table, which a grid also leaves as Markdown."""
    sweep, runs = overridden(load_sweep(options.sweep), options.overrides), Path(options.runs)
    study = run_sweep(sweep, runs, options.trials, options.seed, options.device)
    console, folder = make_console(), folder_of(sweep, runs)
    if sweep.grid is None:
        console.print(f"{sweep.description}\nBest of {len(study.trials)} trials in {folder}:")
        console.print(pareto_table(study, sweep))
        return 0
    from reports.markdown import table

    header, *rows = grid_rows(study, sweep)
    (folder / TABLE).write_text(f"{sweep.description}\n\n{table(header, rows)}\n")
    console.print(f"{sweep.description}\nAll of {folder}, also in {folder / TABLE}:")
    console.print(grid_table(study, sweep))
    return 0
