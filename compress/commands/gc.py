"""`pocketdiff gc --keep-gb X`: frees the disk of what sweeps made and something beats; by default only says what."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path

from compress.errors import UserError
from compress.garbage import GB, Collection, collect
from compress.pipeline import shown


def main(options: argparse.Namespace) -> int:
    """Prints what goes, or with --yes went."""
    if options.keep_gb < 0:
        raise UserError.of(f"keep-gb is {options.keep_gb:g}", "--keep-gb", "Give 0 or more, in 10^9 bytes.")
    runs = Path(options.runs)
    sweeps = runs / "sweeps"
    if not sweeps.is_dir():
        raise UserError.of("there is no folder of sweeps", str(sweeps), "Name the folder of all runs with --runs.")
    found = collect(sweeps.absolute(), runs.absolute(), options.keep_gb, dry=not options.yes)
    for line in lines(found, options.keep_gb, options.yes):
        print(line)
    return 0


def lines(found: Collection, keep_gb: float, done: bool) -> list[str]:
    """One an item, then the sum."""
    told = [f"{datetime.fromtimestamp(item.age_s):%Y-%m-%d %H:%M}  {shown(item.folder)}" for item in found.items]
    verb = "removed" if done else "would remove"
    told.append(
        f"{verb} {len(found.items)} artefacts: {found.before_bytes / GB:.3f} GB -> {found.after_bytes / GB:.3f} GB"
    )
    if found.after_bytes > keep_gb * GB:
        told.append("the rest is needed: trials on a Pareto front, living or interrupted runs, what other runs share")
    if found.items and not done:
        told.append("give --yes to remove them")
    return told
