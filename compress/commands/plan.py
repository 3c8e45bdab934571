"""`pocketdiff plan FOLDER`: the student that a budget leaves of a teacher, from the teacher's config.json alone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.table import Table

from compress.config.budget import LIMITS, Budget
from compress.config.prune import PruneConfig
from compress.errors import UserError
from compress.latency import CHIPS
from compress.progress import make_console
from compress.pruning.budget import Forward, Planned, Price, price
from compress.pruning.budget.goal import goal_within
from students.spec import StudentSpec

LATENT = 64  # where the config does not say: of a 512 px picture
TITLES = dict(zip(LIMITS, ("parameters, M", "MACs, G", "W8 weights padded, MB", "latency, ms"), strict=True))


def main(options: argparse.Namespace) -> int:
    """Prints one line of JSON, or tables."""
    teacher = teacher_of(Path(options.folder))
    side = options.latent or teacher.sample_size or LATENT
    found = goal_within(config_of(options), teacher, side, side, options.tokens)
    if options.json:
        print(json.dumps(as_json(found)))
        return 0
    console = make_console()
    console.print(table_of_sizes(teacher, found.spec))
    console.print(table_of_costs(price(teacher, Forward(side, side, options.tokens), options.chip), found))
    pair = f"a latent of {side} x {side} with its condition beside it"
    console.print(f"One forward of the student is on {pair}, of the teacher on the latent alone.", highlight=False)
    console.print(f"Latency: {found.price.latency}.", highlight=False)
    if found.binding is None:
        console.print("No limit binds: this is the largest student.", highlight=False)
    return 0


def config_of(options: argparse.Namespace) -> PruneConfig:
    """The prune stage that these options describe; UserError for every mistake in them."""
    budget = Budget(
        parameters_m=options.parameters_m,
        macs_g=options.macs_g,
        size_mb_w8_padded=options.size_mb,
        latency_ms=options.latency_ms,
        chip=options.chip,
    )
    steps = PruneConfig().steps if options.steps is None else tuple(filter(None, options.steps.split(",")))
    for name in ("latent", "tokens"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise UserError.of(f"{name} is {value}", f"--{name}", "Give 1 or more.")
    config = PruneConfig(name="plan", steps=steps, compensated=(), budget=budget)
    if problems := config.problems():
        raise UserError(*problems)
    return config


def teacher_of(folder: Path) -> StudentSpec:
    """The architecture of the U-Net in a diffusers folder, or in its `unet`; UserError where it holds none of ours."""
    places = (folder / "unet" / "config.json", folder / "config.json")
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        remedy = "Name a folder in diffusers' layout, with unet/config.json or config.json."
        raise UserError.of("there is no config.json of a U-Net", str(folder), remedy)
    try:
        return StudentSpec.from_config(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError.of(
            f"it cannot be read ({error})", str(path), "Use a U-Net of SDXL's or DreamLite's kind"
        ) from None


def as_json(found: Planned) -> dict[str, Any]:
    """The plan as plain values; latency only with its error."""
    costs = {name: round(getattr(found.price, name), 3) for name in LIMITS[:-1]}
    latency = found.price.latency
    return {
        "spec": found.spec.to_config(),
        **costs,
        "latency_ms_estimated": round(latency.latency_ms, 2),
        "latency_error_ratio": latency.error_ratio,
        "chip": latency.chip,
        "use": {name: round(share, 4) for name, share in found.use.items()},
        "binding": found.binding,
    }


def table_of_sizes(teacher: StudentSpec, student: StudentSpec) -> Table:
    """What each stage keeps, highest resolution first."""
    table = Table("stage", "channels", "heads", "transformer blocks", "layers", box=None, padding=(0, 2, 0, 0))
    for stage in range(student.stages):
        cells = (
            f"{getattr(teacher, name)[stage]} -> {getattr(student, name)[stage]}"
            for name in ("widths", "heads", "transformer_layers", "layers_per_block")
        )
        table.add_row(str(stage), *cells)
    table.add_row("feed-forward", f"x{teacher.ff_mult} -> x{student.ff_mult}", "", "", "")
    return table


def table_of_costs(teacher: Price, found: Planned) -> Table:
    """Costs of teacher and student, and what part of each limit is used."""
    table = Table("", "teacher", "student", "of the limit", box=None, padding=(0, 2, 0, 0))
    error = found.price.latency.error_ratio
    for name in LIMITS:
        title = f"{TITLES[name]} on {CHIPS[found.price.chip].title}" if name == LIMITS[-1] else TITLES[name]
        plus = f" ± {error:.0%}" if name == LIMITS[-1] else ""
        use = f"{found.use[name]:.1%}{' (binds)' if name == found.binding else ''}" if name in found.use else ""
        table.add_row(title, *(f"{getattr(cost, name):.4g}{plus}" for cost in (teacher, found.price)), use)
    return table
