"""`pocketdiff eval CKPT`: scores a checkpoint on the scenes benchmark."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from compress.commands.checkpoint import open_checkpoint, own_stdout
from compress.data.scenes.captions import T2I_TASKS
from compress.data.scenes.edits import EDIT_TASKS
from compress.errors import UserError
from compress.evaluation.scenes_bench import ScenesReport, Score, evaluate, generator_of
from compress.progress import make_console, make_progress
from students.system import DiffusionSystem


def main(options: argparse.Namespace) -> int:
    """Prints one line of JSON, or tables."""
    least = max(len(T2I_TASKS), len(EDIT_TASKS))
    if options.n < least:
        raise UserError.of(f"--n is {options.n}", "command line", f"Give at least {least}, one a task.")
    if options.steps is not None and options.steps < 1:
        raise UserError.of(f"--steps is {options.steps}", "command line", "Give at least 1.")
    with own_stdout():
        report = score(options)
    if options.json:
        print(report.to_json())
    else:
        make_console().print(table_of(report))
    return 0


def score(options: argparse.Namespace) -> ScenesReport:
    """Loads and scores the checkpoint."""
    system, denoiser = open_checkpoint(Path(options.checkpoint), options.runtime, options.device)
    if options.steps is not None:
        system = with_steps(system, options.steps)
    progress = make_progress()
    try:
        make = generator_of(system, options.seed, denoiser=denoiser)
        return evaluate(make, options.n, options.seed, progress, edits=system.edits)
    finally:
        progress.close()


def with_steps(system: DiffusionSystem, steps: int) -> DiffusionSystem:
    """The system, sampled in so many steps. A student distilled to fixed noise levels has no other number."""
    rungs = system.sampling.rungs
    if rungs is not None:
        raise UserError.of(
            f"--steps is {steps}, but this checkpoint walks {len(rungs)} fixed noise levels",
            "command line",
            "Leave --steps out, or score the many-step student that it was distilled from.",
        )
    return system.with_unet(system.unet, replace(system.sampling, steps=steps))


def table_of(report: ScenesReport) -> Table:
    """Every score with its 95 % interval."""
    table = Table("score", "value", "95 % interval", "n", box=None, padding=(0, 2, 0, 0))
    rows: dict[str, Score | None] = {"overall": report.overall, "t2i": report.t2i, "edit": report.edit}
    for name, score in {**rows, **report.tasks, **report.parts}.items():
        if score is not None:
            table.add_row(name, f"{score.value:.3f}", f"{score.low:.3f} to {score.high:.3f}", str(score.n))
    if report.untouched_psnr_db is not None:
        table.add_row("untouched pixels", f"{report.untouched_psnr_db:.1f} dB", "", "")
    return table
