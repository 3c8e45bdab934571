"""`pocketdiff sweep SWEEP`: searches, prints what came out best (of a grid, every combination), and writes the page."""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.commands.report import write_study
from compress.errors import UserError
from compress.progress import make_console, make_progress
from compress.study_record import write_study_record
from compress.sweep import Sweep, folder_of, load_sweep, overridden
from compress.sweep.outcome import finished, outcome
from compress.sweep.storage import answering, public

if TYPE_CHECKING:
    import optuna
    from rich.table import Table


def main(options: argparse.Namespace) -> int:
    """Runs trials until there are enough, then prints the table and writes the report, or prints one line of JSON."""
    check(options)
    sweep, runs = sweep_of(options), Path(options.runs)
    if options.slurm is not None:
        from compress.sweep.slurm import script

        print(script(sweep.name, arguments_of(options), options.slurm), end="")
        return 0
    began_s, folder = time.monotonic(), folder_of(sweep, runs)
    heed_requests_to_stop()
    with answering(options.storage):
        study = work(sweep, runs, options)
        write_study_record(study, sweep, folder, public(options.storage))
        if options.json:
            print(json.dumps(outcome(study, sweep, time.monotonic() - began_s)))
            return 0
    tell(folder)
    write_study(folder)
    return 0


def sweep_of(options: argparse.Namespace) -> Sweep:
    """The sweep as the command line changes it."""
    sweep = overridden(load_sweep(options.sweep), options.overrides)
    return replace(sweep, sampler=options.sampler) if options.sampler else sweep


def heed_requests_to_stop() -> None:
    """Clusters, `kill` and a closed terminal ask to stop as Ctrl-C does; `nohup` still has its way."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def check(options: argparse.Namespace) -> None:
    """UserError for numbers that make no sense."""
    for name in ("workers", "slurm", "submitit", "ray"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError.of(f"{name} is {value}", f"--{name}", "Give 1 or more.")
    if options.disk_gb is not None and not options.disk_gb > 0:
        raise UserError.of(f"disk-gb is {options.disk_gb:g}", "--disk-gb", "Give a positive number of 10^9 bytes.")


def work(sweep: Sweep, runs: Path, options: argparse.Namespace) -> optuna.Study:
    """Carries out trials here, or in several processes."""
    from compress.sweep.worker import prepare, wanted

    if options.submitit is not None:
        return submit(sweep, runs, options)
    if options.ray is not None:
        return hand_to_ray(sweep, runs, options)
    if options.workers == 1:
        return be_a_worker(options)
    from compress.sweep.team import Team

    study = prepare(sweep, runs, options.trials, options.storage)
    command = arguments_of(options, "--json")  # the report is written once, here
    team = Team(command, options.workers, folder_of(sweep, runs) / "logs", lambda: finished(study))
    team.run(wanted(sweep, options.trials), sweep.name, make_progress())
    return study


def be_a_worker(options: argparse.Namespace) -> optuna.Study:
    """Carries out trials in this process."""
    from compress.sweep.worker import run_sweep

    return run_sweep(
        sweep_of(options),
        Path(options.runs),
        options.trials,
        options.seed,
        options.device,
        storage=options.storage,
        disk_gb=options.disk_gb,
        store=options.artefacts,
    )


def submit(sweep: Sweep, runs: Path, options: argparse.Namespace) -> optuna.Study:
    """Carries out trials in jobs of a cluster, each one worker."""
    from compress.sweep.jobs import WorkerJob, executor
    from compress.sweep.jobs import work as work_in_jobs
    from compress.sweep.worker import prepare, wanted

    folder = folder_of(sweep, runs)
    chosen = executor(folder.absolute() / "submitit", sweep.name, options.submitit_set)  # before any work
    study = prepare(sweep, runs, options.trials, options.storage)
    job = WorkerJob(arguments_of(options, "--json"), Path.cwd())
    total = wanted(sweep, options.trials)
    work_in_jobs(chosen, job, options.submitit, lambda: finished(study), total, make_progress())
    return study


def hand_to_ray(sweep: Sweep, runs: Path, options: argparse.Namespace) -> optuna.Study:
    """Carries out trials in workers that Ray Tune places."""
    from compress.sweep.tune import check_ray
    from compress.sweep.tune import work as work_in_ray
    from compress.sweep.worker import prepare, wanted

    settings = check_ray(options.ray_set)  # before any work
    study = prepare(sweep, runs, options.trials, options.storage)
    worker, total = partial(be_a_worker, options), wanted(sweep, options.trials)
    folder = folder_of(sweep, runs)
    work_in_ray(worker, options.ray, settings, folder, lambda: finished(study), total, make_progress())
    return study


def arguments_of(options: argparse.Namespace, *more: str) -> list[str]:
    """The same command for one worker, with `more` flags."""
    flags: dict[str, Any] = {
        "trials": options.trials,
        "storage": options.storage,
        "runs": options.runs,
        "sampler": options.sampler,
        "seed": options.seed,
        "device": options.device,
        "disk-gb": options.disk_gb,
        "artefacts": options.artefacts,
    }
    given = [word for name, value in flags.items() if value is not None for word in (f"--{name}", str(value))]
    return ["sweep", options.sweep, *given, *more, *options.overrides]


def tell(folder: Path) -> None:
    """Prints the front, or a grid's table, as the study's record has it."""
    from reports.study.arms import grid_rows
    from reports.study.read import read_study
    from reports.study.tables import front_rows

    study, console = read_study(folder), make_console()
    if study.grid is None:
        folders = ["folder", *(trial.folder for trial in study.front)]
        rows = [[*row, place] for row, place in zip(front_rows(study), folders, strict=True)]
    else:
        rows = grid_rows(study)
    what = f"{'Best' if study.grid is None else 'All'} of {len(study.comparable)} trials in {folder}:"
    console.print(f"{study.description}\n{what}", highlight=False)
    console.print(table_of(rows))


def table_of(rows: Sequence[Sequence[str]]) -> Table:
    """A header and rows, for a terminal."""
    from rich.table import Table

    header, *body = rows
    table = Table(*header, box=None)
    for row in body:
        table.add_row(*row)
    return table
