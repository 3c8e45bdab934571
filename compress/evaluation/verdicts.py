"""Verdicts one by one, beside the samples: what a comparison of two checkpoints, picture by picture, needs."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

FILE = "verdicts.csv"
COLUMNS = ("form", "seed", "pictures", "task", "verdicts")


def save_verdicts(folder: Path, verdicts: Mapping[str, str], seed: int, pictures: int, form: str = "") -> None:
    """Adds rows to `folder/samples/verdicts.csv`, in place of those of the same form.

    `verdicts` maps a task, as scores name it, to a digit a picture, 1 for accepted. Rows of two checkpoints are of the
    same prompts and noise where `seed` and `pictures` (of a kind) are equal. `form` names a network other than the
    checkpoint's own: float, aimet, htp.
    """
    target = folder / "samples"
    target.mkdir(parents=True, exist_ok=True)
    others = [row for row in load_rows(folder) if row[0] != form]
    rows = [(form, str(seed), str(pictures), task, digits) for task, digits in verdicts.items()]
    with open(target / FILE, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *others, *rows])


def copy_verdicts(parent: Path, folder: Path) -> None:
    """Takes over the parent's own: of a checkpoint that computes what its parent does."""
    own = [row for row in load_rows(parent) if not row[0]]
    if own:
        _, seed, pictures = own[0][:3]
        save_verdicts(folder, {task: digits for *_, task, digits in own}, int(seed), int(pictures))


def load_rows(folder: Path) -> list[list[str]]:
    """The rows of a folder's file without its header; none where there is no file."""
    path = folder / "samples" / FILE
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        return list(csv.reader(file))[1:]
