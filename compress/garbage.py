"""Frees disk space: the artefacts of trials that something beats, oldest first, until a budget is kept.

Only the folders of finished trials are looked at. What a trial on a Pareto front or a living run needs stays, and so
does a trial that was interrupted, for it will go on. Runs share artefacts as hard links, so a file counts once, and is
free when the last of its links goes. Cards stay, in `.collected` of the trial's folder: what was measured is not lost.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.artifact import CARD, TEMPORARY
from compress.locks import is_held, locked
from compress.plan import artefacts
from compress.runfolder import LOCK
from compress.sharing import planning_lock
from compress.study_record import STUDY

TRIAL = "trial.json"
COLLECTED = ".collected"
GB = 1e9
_DEPTH = 4  # how far below the folder of runs a run may lie


@dataclass(frozen=True)
class Item:
    """Something that may go: an artefact, or (without a key) the scratch of a trial that failed."""

    folder: Path
    trial: Path
    key: str | None
    age_s: float  # when it was put in place, in seconds since 1970


@dataclass(frozen=True)
class Collection:
    """What goes, oldest first, and how many bytes there are before and after."""

    items: tuple[Item, ...] = ()
    before_bytes: int = 0
    after_bytes: int = 0

    @property
    def freed_gb(self) -> float:
        return (self.before_bytes - self.after_bytes) / GB


def collect(root: Path, runs: Path, keep_gb: float, dry: bool = False) -> Collection:
    """Brings what lies under `root` (all sweeps, or one) down to `keep_gb`, as far as nothing needs it.

    No run plans while artefacts go, so none can count on one of them.
    """
    with locked(planning_lock(runs), shared=dry):
        found = choose(root, runs, keep_gb)
        if not dry:
            for item in found.items:
                remove(item)
    return found


def collect_sweep(folder: Path, runs: Path, keep_gb: float) -> str | None:
    """`collect` for one sweep; what to tell the user, if anything went."""
    found = collect(folder, runs, keep_gb)
    return f"{len(found.items)} artefacts of beaten trials removed, {found.freed_gb:.2f} GB" if found.items else None


def choose(root: Path, runs: Path, keep_gb: float) -> Collection:
    """What would go."""
    needed = needed_keys(root, runs)
    items = [item for item in candidates(root) if item.key is None or item.key not in needed]
    sizes, links = inventory(root)
    before = left = sum(sizes.values())
    gone: Counter[tuple[int, int]] = Counter()
    chosen: list[tuple[Item, list[tuple[int, int]]]] = []
    for item in sorted(items, key=lambda item: item.age_s):
        if left <= keep_gb * GB:
            break
        paths = (path for path in files_under(item.folder) if path.name != CARD)
        files = [inode_of(status) for path in paths if (status := status_of(path))]
        chosen.append((item, files))
        for inode in files:
            gone[inode] += 1
            left -= sizes.get(inode, 0) if gone[inode] == links.get(inode) else 0
    useful = (item for item, files in chosen if any(gone[inode] == links.get(inode) for inode in files))
    return Collection(tuple(useful), before, left)


def remove(item: Item) -> None:
    """Deletes an item at one stroke: what a kill leaves half deleted has another name by then, and is cleaned up by
    the next run in the folder."""
    if item.key is not None:
        kept = item.trial / COLLECTED
        kept.mkdir(exist_ok=True)
        shutil.copy2(item.folder / CARD, kept / f"{item.folder.name}.json")
    doomed = item.trial / f"{TEMPORARY}{item.folder.name}"
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(item.folder, doomed)
    shutil.rmtree(doomed)


def candidates(root: Path) -> Iterator[Item]:
    """The artefacts, and the scratch, of every finished trial that no process is at work in."""
    for record in find(root, TRIAL):
        trial = record.parent
        if is_held(trial / LOCK) or not (trial.parent / STUDY).is_file():  # without it nobody knows what is beaten
            continue
        for folder, key in artefacts(trial, depth=2):
            if status := status_of(folder):
                yield Item(folder, trial, key, status.st_mtime)
        scratch = trial / ".work"
        if scratch.is_dir() and (status := status_of(scratch)):
            yield Item(scratch, trial, None, status.st_mtime)


def needed_keys(root: Path, runs: Path) -> set[str]:
    """Keys of all stages of trials on a front under `root`, and of all living runs under `runs`."""
    living = [lock.parent for lock in find(runs, LOCK) if is_held(lock)]
    needed = [folder for record in find(root, STUDY) for folder in front(record.parent)]
    return {key for folder in (*living, *needed) for key in keys_of(folder)}


def front(sweep: Path) -> list[Path]:
    """The folders of a sweep's trials that no other beats, of those that lie here.

    A trial without values failed, and one of whose values any is not finite (null in its record) is good for nothing:
    neither is on the front, nor keeps another off it.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = [
        "maximize" if objective["maximize"] else "minimize" for objective in read(sweep / STUDY)["objectives"]
    ]
    study = optuna.create_study(directions=directions)
    for record in find(sweep, TRIAL):
        values = read(record).get("values")
        if values is not None and all(map(_is_finite, values)):
            attributes = {"folder": str(record.parent)}
            study.add_trial(optuna.trial.create_trial(values=values, user_attrs=attributes))
    return [Path(trial.user_attrs["folder"]) for trial in study.best_trials]


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def keys_of(run: Path) -> list[str]:
    """The keys of a run's stages, by its recipe.json."""
    return [stage["key"] for stage in read(run / "recipe.json").get("run", {}).get("stages", [])]


def read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def find(root: Path, name: str, depth: int = _DEPTH) -> Iterator[Path]:
    """Every file of this name in the folders under `root` that runs and sweeps lie in."""
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name == name:
            yield Path(entry.path)
        elif depth and not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
            yield from find(Path(entry.path), name, depth - 1)


def inventory(root: Path) -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], int]]:
    """Bytes and number of links of every file under `root`, by device and inode."""
    sizes, links = {}, {}
    for path in files_under(root):
        if status := status_of(path):
            inode = inode_of(status)
            sizes[inode], links[inode] = status.st_size, status.st_nlink
    return sizes, links


def files_under(folder: Path) -> Iterator[Path]:
    """All files, in hidden folders too."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent) / name for name in names)


def status_of(path: Path) -> os.stat_result | None:
    """What the system knows of a file; None where a worker has renamed or deleted it since it was listed."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def inode_of(status: os.stat_result) -> tuple[int, int]:
    """What tells whether two paths are one file."""
    return status.st_dev, status.st_ino
