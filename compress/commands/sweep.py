"""`pocketdiff sweep SWEEP`: searches, and prints what came out best; of a grid, what every combination came to."""

from __future__ import annotations

import argparse
import json
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.errors import UserError
from compress.progress import make_console, make_progress
from compress.sweep import Sweep, folder_of, load_sweep, overridden
from compress.sweep.outcome import finished, outcome
from compress.sweep.storage import answering
from compress.sweep.tables import grid_rows, grid_table, pareto_table

if TYPE_CHECKING:
    import optuna

TABLE = "table.md"


def main(options: argparse.Namespace) -> int:
    """Runs trials until there are enough, then prints the table, which a grid also leaves as Markdown."""
    check(options)
    sweep, runs = overridden(load_sweep(options.sweep), options.overrides), Path(options.runs)
    if options.slurm is not None:
        from compress.sweep.slurm import script

        print(script(sweep.name, arguments_of(options), options.slurm), end="")
        return 0
    began_s = time.monotonic()
    heed_requests_to_stop()
    with answering(options.storage):
        study = work(sweep, runs, options)
        if options.json:
            print(json.dumps(outcome(study, sweep, time.monotonic() - began_s)))
        else:
            tell(study, sweep, folder_of(sweep, runs))
    return 0


def heed_requests_to_stop() -> None:
    """Clusters, `kill` and a closed terminal ask to stop as Ctrl-C does; `nohup` still has its way."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def check(options: argparse.Namespace) -> None:
    """UserError for numbers that make no sense."""
    for name in ("workers", "slurm"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError.of(f"{name} is {value}", f"--{name}", "Give 1 or more.")
    if options.disk_gb is not None and not options.disk_gb > 0:
        raise UserError.of(f"disk-gb is {options.disk_gb:g}", "--disk-gb", "Give a positive number of 10^9 bytes.")


def work(sweep: Sweep, runs: Path, options: argparse.Namespace) -> optuna.Study:
    """Carries out trials here, or in several processes."""
    from compress.sweep.worker import prepare, run_sweep, wanted

    if options.workers == 1:
        return run_sweep(
            sweep,
            runs,
            options.trials,
            options.seed,
            options.device,
            storage=options.storage,
            disk_gb=options.disk_gb,
        )
    from compress.sweep.team import Team

    study = prepare(sweep, runs, options.trials, options.storage)
    team = Team(arguments_of(options), options.workers, folder_of(sweep, runs) / "logs", lambda: finished(study))
    team.run(wanted(sweep, options.trials), sweep.name, make_progress())
    return study


def arguments_of(options: argparse.Namespace) -> list[str]:
    """The same command for one worker."""
    flags: dict[str, Any] = {
        "trials": options.trials,
        "storage": options.storage,
        "runs": options.runs,
        "seed": options.seed,
        "device": options.device,
        "disk-gb": options.disk_gb,
    }
    given = [word for name, value in flags.items() if value is not None for word in (f"--{name}", str(value))]
    return ["sweep", options.sweep, *given, *options.overrides]


def tell(study: optuna.Study, sweep: Sweep, folder: Path) -> None:
    """Prints the front, or a grid's table."""
    console = make_console()
    if sweep.grid is None:
        console.print(f"{sweep.description}\nBest of {len(study.trials)} trials in {folder}:")
        console.print(pareto_table(study, sweep))
        return
    from reports.markdown import table

    header, *rows = grid_rows(study, sweep)
    (folder / TABLE).write_text(f"{sweep.description}\n\n{table(header, rows)}\n")
    console.print(f"{sweep.description}\nAll of {folder}, also in {folder / TABLE}:")
    console.print(grid_table(study, sweep))
