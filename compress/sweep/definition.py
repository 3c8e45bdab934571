"""What a sweep is: a function of an Optuna trial that returns a recipe, objectives to trade off, limits to keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.artifact import hash_of
from compress.overrides import apply_overrides
from compress.recipe import Recipe, load_module

if TYPE_CHECKING:
    import optuna

TRIALS = 20  # of a search, where nobody says how many


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A metric on the card of one of a trial's stages; `label` names it for people, with its unit.

    `worst` is a value that is worth nothing: the coordinate of the point up to which the hypervolume is measured.
    Without it that is the worst value of the study's own trials, and hypervolumes of two studies do not compare.
    `value`, where given, tells it from the recipe instead of from the card (`compress.sweep.limits` makes such ones).
    """

    stage: str
    metric: str
    label: str
    maximize: bool = False
    worst: float | None = None
    value: Callable[[Recipe], float] | None = None


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """An upper limit on what a recipe's spec tells before any work; `label` names it for people, with its unit.

    A trial above a limit ends without work, and the sampler is told by how much (`compress.sweep.limits` makes the
    usual ones).
    """

    label: str
    at_most: float
    value: Callable[[Recipe], float]

    def excess(self, value: float) -> float:
        """How far a recipe's value is above the limit, as a share of it; <= 0 where it is within."""
        return (value - self.at_most) / (abs(self.at_most) or 1.0)


@dataclass(frozen=True, kw_only=True)
class EarlyStop:
    """Ends a trial that falls behind others while one of its stages trains, by a figure of the learning curve.

    `curve` is judged in the direction of the sweep's one objective; it has a point wherever the stage reports one
    (`validate_every`). "median" stops what is worse than half of the others at the same step, "hyperband" all but the
    best third at steps that triple up to `last_step`; nothing is stopped before `first_step`.
    """

    stage: str
    curve: str
    pruner: str = "median"
    first_step: int = 1
    last_step: int | None = None


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """Rungs below the sweep's own objectives, from cheap to dear; a trial climbs on only if it is among the best.

    A rung holds stand-ins for the sweep's objectives, in their order, each with its own direction (an error may stand
    in for a score); a trial runs to the last stage that they name.
    One trial in `factor` climbs on (`compress.sweep.ladder`). The first `unselected` climb to the top whatever they
    score: the rank correlation between rungs over these is that of the space, over the others that of a selection.
    """

    rungs: tuple[tuple[Objective, ...], ...]
    factor: int = 3
    unselected: int = 0


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What to search: `sample` turns an Optuna trial into a recipe; the objectives are traded off, within constraints.

    With a `grid`, every combination of its values is tried once instead, a comparison whose table has a row for each;
    combinations that differ in `replicate` alone share their row, as mean and spread.

    `finish` says how a trial goes on to the phone: it gets the trial's recipe and returns the whole one, which begins
    with the same stages (`pocketdiff deploy-front`). A sweep whose recipes end in stage deploy needs none. With a
    `ladder` only the best trials are carried out whole; with an `early_stop` trials end within a stage. `sampler` names
    one of `compress.sweep.sampling.SAMPLERS`.
    """

    name: str
    description: str
    sample: Callable[[optuna.Trial], Recipe]
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    grid: dict[str, Sequence[Any]] | None = None
    replicate: str = "seed"
    finish: Callable[[Recipe], Recipe] | None = None
    ladder: Ladder | None = None
    early_stop: EarlyStop | None = None
    sampler: str = "tpe"

    @property
    def size(self) -> int | None:
        """How many trials the grid has; None without one."""
        return None if self.grid is None else math.prod(len(values) for values in self.grid.values())


def load_sweep(name: str) -> Sweep:
    """The sweep called `name` in recipes/sweeps, or the one in the Python file `name`."""
    sweep: Sweep = load_module(name, "recipes.sweeps", "sweep").sweep()
    return sweep


def overridden(sweep: Sweep, arguments: Sequence[str]) -> Sweep:
    """The sweep with these `--<stage>.<field> value` in every trial; a study of its own, since results differ."""
    if not arguments:
        return sweep

    def sample(trial: optuna.Trial) -> Recipe:
        return apply_overrides(sweep.sample(trial), arguments)

    return replace(sweep, name=f"{sweep.name}-{hash_of(list(arguments))[:6]}", sample=sample)


def folder_of(sweep: Sweep, runs: Path) -> Path:
    """Where a sweep keeps its study and its trials' runs."""
    return runs / "sweeps" / sweep.name


def trial_folder(params: dict[str, Any]) -> str:
    """A trial's run folder, by its parameters: asking the same again finds what was done."""
    return f"trial-{hash_of(params)[:12]}"
