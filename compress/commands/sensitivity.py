"""`pocketdiff sensitivity CKPT`: how much of the velocity each dependency group of a checkpoint's U-Net carries.

A command and not a field of the prune stage: it measures any network of a run, before pruning or after, and a diagnosis
must neither change the key of what it diagnoses nor have it made again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.artifact import CARD, load_card, write_json
from compress.commands.checkpoint import open_checkpoint, own_stdout
from compress.config.prune import CRITERIA, PruneConfig
from compress.errors import Problem, UserError
from compress.progress import make_console, make_progress

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

    from compress.pruning.calibration import Noised
    from compress.pruning.importance import Saliency
    from compress.pruning.sensitivity import Row
    from compress.pruning.surgery import Draft

FOLDER = "sensitivity"  # in a run folder: <stage folder>.json, which the run's report reads
LEAST_SAMPLES = 8  # noise levels are stratified
SHOWN = 12


def main(options: argparse.Namespace) -> int:
    """Measures, keeps the rows where the run's report finds them, and prints one line of JSON or the worst groups."""
    ratios, checkpoint = checked(options), Path(options.checkpoint)
    run = run_of(checkpoint, options.run)
    with own_stdout():
        found = measure(checkpoint, options.criterion, ratios, options.samples, options.seed, options.device)
    if run is not None:
        (run / FOLDER).mkdir(exist_ok=True)
        write_json(run / FOLDER / f"{found['checkpoint']}.json", found)
    if options.json:
        print(json.dumps(found))
        return 0
    console = make_console()
    console.print(table_of(found))
    if run is not None:
        console.print(f"All groups are kept in {run / FOLDER}; `pocketdiff report {run}` shows them.", highlight=False)
    return 0


def checked(options: argparse.Namespace) -> list[float]:
    """The ratios, ascending; UserError for every mistake in the options that can be told without the checkpoint."""
    problems, ratios = [], []
    for word in options.ratios.split(","):
        try:
            ratios.append(float(word))
        except ValueError:
            ratios.append(-1.0)
        if not 0 < ratios[-1] <= 1:
            problems.append(
                Problem(f"--ratios has {word!r}", "command line", "Give shares of a group's units in 0..1.")
            )
    if options.criterion not in CRITERIA:
        what = f"--criterion is {options.criterion!r}"
        problems.append(Problem(what, "command line", f"Use one of {', '.join(CRITERIA)}."))
    if options.samples < LEAST_SAMPLES:
        what = f"--samples is {options.samples}"
        problems.append(Problem(what, "command line", f"Give at least {LEAST_SAMPLES}; noise levels are stratified."))
    if options.run is not None and not Path(options.run).is_dir():
        problems.append(
            Problem(f"--run {options.run} is no folder", "command line", "Name a run, such as runs/scenes.")
        )
    if problems:
        raise UserError(*problems)
    return sorted(set(ratios))


def run_of(checkpoint: Path, run: str | None) -> Path | None:
    """The run folder that keeps the result: the one asked for, or the one that the checkpoint is a stage of."""
    if run is not None:
        return Path(run)
    parent = checkpoint.resolve().parent
    return parent if (parent / "recipe.json").is_file() else None


def measure(
    checkpoint: Path, criterion: str, ratios: list[float], samples: int, seed: int, device: str
) -> dict[str, Any]:
    """Every group's error at every ratio, with what decides it. Scores and errors come from disjoint draws: those that
    the prune stage makes with the same seed and numbers."""
    import torch

    from compress.pruning.calibration import predictions
    from compress.pruning.evolution import rehouse
    from compress.pruning.surgery import Bench
    from compress.stages.prune import draw_samples

    began = time.monotonic()
    system, _ = open_checkpoint(checkpoint, "torch", device)
    try:
        draft = rehouse(system.unet.eval(), system.text_encoder.config.hidden_size)
    except ValueError as error:
        raise UserError.of(str(error), str(checkpoint), "Name a U-Net of SDXL's or DreamLite's kind.") from None
    config = PruneConfig(
        seed=seed, calibration_samples=samples, held_out_samples=samples, fitting_samples=LEAST_SAMPLES
    )
    drawn = draw_samples(config, system)
    saliency = Bench(drawn.calibration, criterion, torch.Generator().manual_seed(seed)).saliency(draft)
    reference = predictions(draft.unet, drawn.held_out)
    rows = measure_groups(draft, saliency, ratios, drawn.held_out, reference)
    return {
        "checkpoint": checkpoint.resolve().name,
        "key": load_card(checkpoint).key if (checkpoint / CARD).exists() else None,
        "criterion": criterion,
        "samples": samples,
        "seed": seed,
        "velocity_mean_square": float(torch.cat(reference).double().square().mean()),
        "wall_s": round(time.monotonic() - began, 1),
        "rows": [row.as_json() for row in rows],
    }


def measure_groups(
    draft: Draft, saliency: Saliency, ratios: list[float], batches: list[Noised], reference: list[Tensor]
) -> list[Row]:
    """The rows of all groups of the network, with a progress bar."""
    from compress.pruning.groups import find_groups
    from compress.pruning.sensitivity import sensitivity

    groups, progress = find_groups(draft.spec), make_progress()
    progress.start(len(groups), "groups", "sensitivity")

    def tell(row: Row) -> None:
        progress.advance(1, velocity_mse=row.velocity_mse)

    try:
        return sensitivity(draft.unet, groups, saliency, ratios, batches, reference, tell)
    finally:
        progress.close()


def table_of(found: dict[str, Any]) -> Table:
    """The groups that carry most, by their error at the largest ratio."""
    from rich.table import Table

    groups: dict[str, list[dict[str, Any]]] = {}
    for row in found["rows"]:
        groups.setdefault(row["group"], []).append(row)
    worst = sorted(groups.values(), key=lambda rows: -rows[-1]["velocity_mse"])[:SHOWN]
    shares = [f"{row['ratio_units']:.0%} gone" for row in worst[0]]
    table = Table("group", "units", *shares, box=None, padding=(0, 2, 0, 0))
    for rows in worst:
        table.add_row(rows[0]["group"], str(rows[0]["units"]), *(f"{row['velocity_mse']:.3g}" for row in rows))
    return table
