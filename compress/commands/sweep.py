"""`pocketdiff sweep SWEEP`: searches, and prints what came out best; of a grid, what every combination came to."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from compress.commands.report import write
from compress.progress import make_console
from compress.sweep import folder_of, load_sweep, overridden, run_sweep

if TYPE_CHECKING:
    from rich.table import Table


def main(options: argparse.Namespace) -> int:
    """Runs trials until there are enough, prints the table, and writes the report."""
    from reports.study import front_rows, grid_rows, read_study

    sweep, runs = overridden(load_sweep(options.sweep), options.overrides), Path(options.runs)
    run_sweep(sweep, runs, options.trials, options.seed, options.device)
    folder = folder_of(sweep, runs)
    study, console = read_study(folder), make_console()
    what = "Best" if study.grid is None else "All"
    console.print(f"{sweep.description}\n{what} of {len(study.finished)} trials in {folder}:", highlight=False)
    console.print(table_of(front_rows(study) if study.grid is None else grid_rows(study)))
    write(folder)
    return 0


def table_of(rows: Iterator[list[str]]) -> Table:
    """A header and rows for a terminal."""
    from rich.table import Table

    table = Table(*next(rows), box=None)
    for row in rows:
        table.add_row(*row)
    return table
