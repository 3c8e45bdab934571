"""A recipe: the ordered, validated stages of one run, as an inert value. Recipes live in `recipes/`, one file each."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from compress.artifact import hash_of
from compress.config.base import StageConfig
from compress.errors import Problem, UserError

HEADINGS = ("Command", "Hardware", "Time", "Expected")  # what a recipe's docstring has to tell
_NUMBERS = {"prune": 10, "t2i": 20, "edit": 30, "joint": 40, "sft": 50, "reward": 60, "distill": 70, "quantize": 80}
_NUMBERS |= {"qat": 85, "deploy": 90, "vae": 10, "text": 20, "teacher": 30}


@dataclass(frozen=True, kw_only=True)
class TeacherRef:
    """Where the frozen teacher's artefact lies: relative to the working directory or else to the repository."""

    folder: str


@dataclass(frozen=True, kw_only=True)
class ForeignTeacher:
    """A teacher that others trained: a folder in diffusers' layout, or the id of one on the Hugging Face Hub. It has no
    card, and is known by the bytes of its U-Net."""

    path: str


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Who scores the checkpoints that stages make, and on how many pictures of a kind; not part of any key.

    `runner` is "module:function", called as function(folder, images, device, progress) -> metrics. `images_of` gives
    stages another number of pictures, by name: few where a stage is only passed through.
    """

    runner: str = "compress.evaluation.measure:measure"
    images: int = 1000
    images_of: dict[str, int] = field(default_factory=dict)

    def of(self, stage: str) -> Judge:
        """The judge of the stage called `stage`."""
        return replace(self, images=self.images_of.get(stage, self.images))

    def problems(self, recipe: str, stages: list[str]) -> list[Problem]:
        """Negative numbers, and stages that `recipe` does not have."""
        where, found = f"recipe {recipe!r}", []
        for name, images in {"images": self.images, **self.images_of}.items():
            if images < 0:
                found.append(Problem(f"judge: {name} is {images}", where, "Give 0 or more pictures."))
        for name in self.images_of:
            if name not in stages:
                found.append(Problem(f"judge.images_of names {name!r}", where, _did_you_mean(name, stages)))
        return found


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The stages of one run, in order: each starts from the artefact of the one before, the first from the teacher.

    `live` names stages that are computed in this run folder even where a shipped or another run's artefact would do.
    `judge` scores every checkpoint that a stage has not scored itself.
    """

    name: str  # also the run folder: runs/<name>
    description: str
    teacher: TeacherRef | ForeignTeacher | None
    stages: tuple[StageConfig, ...]
    live: tuple[str, ...] = ()
    judge: Judge | None = None

    def problems(self) -> list[Problem]:
        """Every mistake in the recipe and in all of its stages, each with its remedy."""
        names = [stage.name for stage in self.stages]
        found = []
        if not self.stages:
            found.append(Problem("there are no stages", f"recipe {self.name!r}", "Add at least one stage."))
        for name in sorted({name for name in names if names.count(name) > 1}):
            found.append(Problem(f"two stages are called {name!r}", f"recipe {self.name!r}", "Rename one of them."))
        for name in self.live:
            if name not in names:
                found.append(Problem(f"live names {name!r}", f"recipe {self.name!r}", _did_you_mean(name, names)))
        if self.judge is not None:
            found += self.judge.problems(self.name, names)
        return found + [problem for stage in self.stages for problem in stage.problems()]

    def check(self) -> None:
        """Raises one UserError with every problem, if there are any."""
        if found := self.problems():
            raise UserError(*found)

    def index(self, stage: str, where: str) -> int:
        """Position of the stage called `stage`; UserError naming the closest ones, saying `where` it was asked for."""
        names = [config.name for config in self.stages]
        if stage not in names:
            raise UserError.of(f"there is no stage {stage!r} in {self.name}", where, _did_you_mean(stage, names))
        return names.index(stage)

    def folder_of(self, stage: StageConfig) -> str:
        """Name of the stage's folder in the run folder: "40-joint"; "31-joint_1" of a round before it, "43-joint_3" of
        one after it."""
        base, _, turn = stage.name.rpartition("_")
        if base in _NUMBERS and turn.isdecimal() and 0 < int(turn) < 10:
            names = [other.name for other in self.stages]
            after = base in names[: names.index(stage.name)]
            number = _NUMBERS[base] - (0 if after else 10) + int(turn)
        else:
            number = _NUMBERS.get(stage.name, 10 * (1 + self.stages.index(stage)))
        return f"{number}-{stage.name}"

    def resolved(self) -> dict[str, Any]:
        """The recipe as plain JSON, every field of every stage written out."""
        return {
            "name": self.name,
            "description": self.description,
            "teacher": dataclasses.asdict(self.teacher) if self.teacher else None,
            "live": list(self.live),
            "judge": dataclasses.asdict(self.judge) if self.judge else None,
            "stages": [resolved_config(stage) for stage in self.stages],
        }


def resolved_config(config: StageConfig) -> dict[str, Any]:
    """Kind, code version and every field of a stage, as plain JSON."""
    fields = _plain(dataclasses.asdict(config))
    return {"kind": config.kind, "runner": config.runner, "code_version": config.code_version, **fields}


def stage_key(config: StageConfig, parents: Iterable[str]) -> str:
    """Hex sha256 of all that decides a stage's artefact: kind, code version, fields, and its parents' keys.

    Two kinds of field can be left out by their metadata: `{"in_key": False}` for one that cannot change the result
    (how often to log), and `{"absent_means": value}` for one that was added later: it leaves the key alone while it
    has that value, so that artefacts made before the field existed are still found.
    """
    resolved = resolved_config(config)
    del resolved["runner"]  # where the code lies may change; what it computes is `kind` and `code_version`
    for entry in dataclasses.fields(config):
        absent = entry.metadata.get("absent_means", dataclasses.MISSING)
        silent = absent is not dataclasses.MISSING and getattr(config, entry.name) == absent
        if silent or not entry.metadata.get("in_key", True):
            del resolved[entry.name]
    return hash_of({"config": _whole(resolved), "parents": list(parents)})


def discover(package: str = "recipes", function: str = "recipe") -> dict[str, ModuleType]:
    """Name -> module of every recipe: the modules under `package` that define `recipe()`, found, not listed by hand.

    A recipe in a subfolder is called `folder/name`, for example "ablations/no_kd".
    """
    root = importlib.import_module(package)
    found = {}
    for info in pkgutil.walk_packages(root.__path__, f"{package}."):
        module = importlib.import_module(info.name)
        if callable(getattr(module, function, None)):
            found[info.name.removeprefix(f"{package}.").replace(".", "/")] = module
    return found


def load_recipe(name: str) -> Recipe:
    """The recipe called `name`, or the one in the Python file `name`; UserError if there is none."""
    recipe: Recipe = load_module(name).recipe()
    return recipe


def load_module(name: str, package: str = "recipes", function: str = "recipe") -> ModuleType:
    """The module of a recipe (or sweep), by name or path; UserError with the closest names if there is none."""
    if not name.endswith(".py"):
        modules = discover(package, function)
        if name not in modules:
            raise UserError.of(f"there is no {function} {name!r}", package, _did_you_mean(name, modules))
        return modules[name]
    path = Path(name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UserError.of("there is no such file", name, f"Give the path of a Python file with a {function}().")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, function, None)):
        raise UserError.of(f"the file defines no {function}()", name, f"Write `def {function}():` in it.")
    return module


def first_line(module: ModuleType) -> str:
    """The first line of a module's docstring."""
    return (inspect.getdoc(module) or "").partition("\n")[0]


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    known = sorted(set(known))
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(close)}?" if close else f"Choose one of: {', '.join(known)}."


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    return value


def _whole(value: Any) -> Any:
    """1.0 as 1: a recipe may write either where a field is a float, and means the same."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value
