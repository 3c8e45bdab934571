"""Carries the parts of a checkpoint that a stage does not change from its parent to its artefact."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path


def copy_parts(parent: Path, out: Path, parts: Iterable[str]) -> None:
    """Copies folders or files of `parent` into `out`. Raises FileNotFoundError naming the missing one."""
    for part in parts:
        source = parent / part
        if source.is_dir():
            shutil.copytree(source, out / part, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copy2(source, out / part)
        else:
            raise FileNotFoundError(f"{parent} has no {part}")
