"""`pocketdiff run RECIPE`: carries out a recipe and writes its report."""

from __future__ import annotations

import argparse
from pathlib import Path

from compress.commands.report import write
from compress.overrides import apply_overrides
from compress.plan import Options, make_plan
from compress.progress import make_console
from compress.recipe import load_recipe


def main(options: argparse.Namespace) -> int:
    """Runs, or with --dry-run prints the plan."""
    recipe = apply_overrides(load_recipe(options.recipe), options.overrides)
    runs = Path(options.runs)
    chosen = Options(
        out=Path(options.out) if options.out else runs / recipe.name,
        runs=runs,
        until=options.until,
        start=options.start,
        fresh=options.fresh,
        device=options.device,
        store=options.artefacts,
    )
    if options.dry_run:
        from compress.estimate import plan_table

        make_console().print(plan_table(make_plan(recipe, chosen), chosen))
        return 0
    from compress.pipeline import run

    run(recipe, chosen)
    write(chosen.out)
    return 0
