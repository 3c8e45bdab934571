"""Decides, before anything runs, what each stage of a recipe needs: nothing, a copy, or to be computed.

A stage's key is the hash of its configuration and its parents' keys, so it is known before anything has run. Going
backwards from the last stage, an artefact with the right key makes everything before it unnecessary.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from compress.artifact import CARD, Card, load_card, verify
from compress.config.base import StageConfig
from compress.errors import Problem, UserError
from compress.provenance import REPOSITORY
from compress.recipe import ForeignTeacher, Recipe, stage_key
from compress.runfolder import Redo, RunFolder
from compress.store import Store

SHIPPED = (REPOSITORY / "teachers" / "weights", REPOSITORY / "students" / "weights")
_DEPTH = 5  # how far below a root an artefact may lie


class Action(Enum):
    """What happens to a stage in this run."""

    DONE = "done already"
    REUSE = "reused"
    RUN = "run"
    SKIP = "not needed"


@dataclass(frozen=True)
class Options:
    """How to run a recipe. `out` is the run folder, `runs` the folder of all runs; both may not exist yet.

    `wait` waits for another process that is at work in the run folder, where otherwise that is a UserError. `watch` is
    told every point of the learning curves of stages that train, as (stage, steps, figures), and may end the run by
    raising. `store` is the address of artefacts that other machines share (`compress.store`). `held` is given by who
    carries out run after run: stages leave there what the next one may need again.
    """

    out: Path
    runs: Path
    until: str | None = None
    start: str | None = None  # --from
    fresh: bool = False
    device: str = "auto"
    shipped: tuple[Path, ...] = SHIPPED
    wait: bool = False
    watch: Callable[[str, int, Mapping[str, float]], None] | None = None
    store: str | None = None
    held: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("out", "runs"):
            object.__setattr__(self, name, Path(os.path.abspath(getattr(self, name))))


@dataclass(frozen=True)
class Step:
    """One stage of a plan. `source` is the artefact to reuse; `shared` says that one from elsewhere would do."""

    stage: StageConfig
    folder: Path
    key: str
    action: Action
    source: Path | None = None
    shared: bool = True

    @property
    def label(self) -> str:
        return self.folder.name


@dataclass(frozen=True)
class Plan:
    """The steps in order, up to the last one asked for.

    `keys` are those of all stages; the teacher's folder and card are None in a teacher's own recipe.
    """

    recipe: Recipe
    steps: tuple[Step, ...]
    keys: tuple[str, ...]
    teacher: Path | None
    teacher_card: Card | None
    redo: Redo | None

    def parent_of(self, step: Step) -> Path | None:
        """The artefact a step starts from: the step before it, or the teacher."""
        position = self.steps.index(step)
        return self.steps[position - 1].folder if position else self.teacher

    def replaced(self, step: Step, **changes: Any) -> Plan:
        """The plan with a step as it turned out."""
        changed = dataclasses.replace(step, **changes)
        return dataclasses.replace(self, steps=tuple(changed if s is step else s for s in self.steps))


def make_plan(recipe: Recipe, options: Options) -> Plan:
    """What to do for each stage. Reads cards and verifies files; writes nothing.

    Raises UserError for a mistake in the recipe, an unknown stage in `until` or `start`, a missing teacher, and for
    every damaged file in an artefact of this run or a shipped one.
    """
    recipe.check()
    last = recipe.index(options.until, "--until") if options.until else len(recipe.stages) - 1
    first = recipe.index(options.start, "--from") if options.start else 0
    if first > last:
        raise UserError.of(f"{options.start} comes after {options.until}", "--from", "Name a stage before --until.")
    teacher, teacher_card = find_teacher(recipe)
    keys = keys_of(recipe, teacher_card)
    redo = Redo(options.fresh, options.start) if options.fresh or options.start else None
    redo = RunFolder(options.out).unfinished(redo)
    store = Store(options.store, options.runs) if options.store else None
    catalogue = Catalogue([options.out, options.runs], options.shipped, store)
    problems: list[Problem] = []
    steps: list[Step] = []
    needed = True
    for position in range(last, -1, -1):
        stage = recipe.stages[position]
        again = redo is not None and position >= first and keys[position] not in redo.finished
        live = stage.name in recipe.live
        folder, shared = options.out / recipe.folder_of(stage), not (again or live)
        blank = Step(stage, folder, keys[position], Action.RUN, shared=shared)
        try:
            step = blank if again else _settle(blank, catalogue, options.out if live else None)
        except UserError as error:
            problems += _remedied(error, recipe, stage)
            continue
        if step.action is Action.RUN and not (needed or live or again):
            step = dataclasses.replace(step, action=Action.SKIP)
        needed = step.action is Action.RUN
        steps.insert(0, step)
    if problems:
        raise UserError(*problems)
    return Plan(recipe, tuple(steps), tuple(keys), teacher, teacher_card, redo)


def find_teacher(recipe: Recipe) -> tuple[Path | None, Card | None]:
    """The folder and verified card of the recipe's teacher; UserError if it is not there."""
    if recipe.teacher is None:
        return None, None
    if isinstance(recipe.teacher, ForeignTeacher):
        from compress.pruning.stream.teacher import open_teacher

        return open_teacher(recipe.teacher.path)
    given = Path(recipe.teacher.folder)
    places = [given] if given.is_absolute() else [given, REPOSITORY / given]
    folder = next((place for place in places if (place / CARD).exists()), None)
    if folder is None:
        remedy = (
            "Train one with `pocketdiff run teacher_scenes` and give its folder with "
            "`--teacher.folder runs/teacher_scenes/30-teacher`."
        )
        raise UserError.of(f"there is no teacher in {given}", f"recipe {recipe.name!r}", remedy)
    return folder, verify(folder, f"Restore it with `git checkout -- {given}`, or train it again.")


def keys_of(recipe: Recipe, teacher: Card | None) -> list[str]:
    """The key of every stage. A teacher is known by its bytes (content hash), a stage by what would make it."""
    keys: list[str] = []
    parent = [] if teacher is None else [teacher.content_hash]
    for stage in recipe.stages:
        keys.append(stage_key(stage, parent))
        parent = [keys[-1]]
    return keys


class Catalogue:
    """Every artefact within reach, by key: those of runs, those shipped with the repository, then those in a store."""

    def __init__(self, runs: Sequence[Path], shipped: Sequence[Path], store: Store | None = None) -> None:
        self._shipped, self._store = tuple(shipped), store
        self._by_key: dict[str, list[Path]] = {}
        for root in [*runs, *shipped]:
            for folder, key in artefacts(Path(root)):
                if folder not in self._by_key.setdefault(key, []):
                    self._by_key[key].append(folder)

    def find(self, key: str, inside: Path | None = None) -> Path | None:
        """A sound artefact with this key. With `inside`, only one that was computed in that run folder.

        A damaged copy in another run is passed over; a damaged shipped one raises UserError, for its files are
        part of the installation.
        """
        for folder in self._by_key.get(key, []):
            if inside is not None and (inside not in folder.parents or load_card(folder).reused_from is not None):
                continue
            try:
                verify(folder, f"Restore it with `git checkout -- {folder}`.")
            except UserError:
                if self.is_shipped(folder):
                    raise
                continue
            return folder
        return self._store.fetch(key) if self._store is not None and inside is None else None

    def is_shipped(self, folder: Path) -> bool:
        """Whether the artefact belongs to the repository."""
        return any(root in folder.parents for root in self._shipped)


def _settle(step: Step, catalogue: Catalogue, only_inside: Path | None) -> Step:
    """The step with the artefact that makes running it unnecessary, if there is one."""
    if (step.folder / CARD).exists():
        card = load_card(step.folder)
        if card.key == step.key and (only_inside is None or card.reused_from is None):
            verify(step.folder)
            return dataclasses.replace(step, action=Action.DONE)
    source = catalogue.find(step.key, only_inside)
    return step if source is None else dataclasses.replace(step, action=Action.REUSE, source=source)


def _remedied(error: UserError, recipe: Recipe, stage: StageConfig) -> Iterator[Problem]:
    again = f"Compute it again with `pocketdiff run {recipe.name} --from {stage.name}`, or restore the file."
    for problem in error.problems:
        yield problem if "git checkout" in problem.remedy else dataclasses.replace(problem, remedy=again)


def artefacts(root: Path, depth: int = _DEPTH) -> Iterator[tuple[Path, str]]:
    """Folder and key of every artefact under `root`, those that another one replaced included."""
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError:
        return
    if any(entry.name == CARD for entry in entries):
        try:
            yield root, str(json.loads((root / CARD).read_text())["key"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not an artefact of ours; where it stands in for a stage of this run, _settle says so
    elif depth:
        for entry in entries:
            if entry.is_dir() and (entry.name == ".kept" or not entry.name.startswith(".")):
                yield from artefacts(root / entry.name, depth - 1)
