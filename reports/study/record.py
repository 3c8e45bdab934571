"""A study as typed rows: its objectives, its parameters, and every trial with its values, times and stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from reports.study.front import Point, front

Value = float | int | str | bool | None  # of a parameter
COMPLETE, PRUNED = "complete", "pruned"


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is traded off; `label` names it for people, with its unit. `metric` stands on the card of `stage`. A value
    of `worst` is worth nothing: the hypervolume is measured up to it, and without it up to the worst of the trials."""

    label: str
    metric: str = ""
    stage: str = ""
    maximize: bool = False
    worst: float | None = None

    @property
    def wish(self) -> str:
        """Which way is better, in a word."""
        return "higher is better" if self.maximize else "lower is better"


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """Rungs below the study's objectives, each with stand-ins for them in their order. One trial in `factor` climbed
    on, and the first `unselected` whatever they scored."""

    rungs: tuple[tuple[Objective, ...], ...]
    factor: int
    unselected: int = 0


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One dimension of the space: a range of numbers (`low` to `high`), or `choices` in order."""

    name: str
    kind: str  # "float", "int" or "categorical"
    low: float | None = None
    high: float | None = None
    choices: tuple[Value, ...] = ()
    log: bool = False


@dataclass(frozen=True)
class StageTime:
    """A stage of a trial: its key, whether it was computed there ("run") or found ("reused"), and the time spent."""

    name: str
    key: str
    action: str
    wall_s: float

    @property
    def reused(self) -> bool:
        """Whether the trial took the stage's artefact from elsewhere."""
        return self.action != "run"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial. `params` lacks what a conditional space did not ask; `values` is empty before it is complete."""

    number: int
    state: str  # "complete", "pruned", "fail", "running" or "waiting"
    params: Mapping[str, Value]
    values: tuple[float | None, ...] = ()  # None stands for what is not finite
    constraints: tuple[float, ...] = ()  # each holds where it is at most 0
    folder: str = ""
    worker: str = ""
    reason: str = ""  # why it failed or was not carried out
    started_utc: str = ""
    finished_utc: str = ""
    wall_s: float | None = None
    intermediate: tuple[tuple[float, float], ...] = ()  # (step, value)
    stages: tuple[StageTime, ...] = ()
    rungs: tuple[tuple[float | None, ...], ...] = ()  # of a ladder, below the top: the values on each it reached

    @property
    def entered(self) -> bool:
        """Whether it was carried out or is under way."""
        return self.state in (COMPLETE, "running") or (self.state == PRUNED and bool(self.folder))

    @property
    def judged(self) -> bool:
        """Whether every objective has a finite value."""
        return self.state == COMPLETE and bool(self.values) and None not in self.values

    @property
    def figures(self) -> tuple[float, ...]:
        """The values of a judged trial."""
        return tuple(value for value in self.values if value is not None)

    @property
    def feasible(self) -> bool:
        """Whether all constraints hold; true where there are none."""
        return all(value <= 0 for value in self.constraints)


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study.json, read and checked. `importance` maps an objective's label to its parameters' shares.

    A `grid` holds every parameter's values; its combinations that differ in `replicate` alone repeat each other.
    """

    name: str
    description: str
    folder: Path
    objectives: tuple[Objective, ...]
    parameters: tuple[Parameter, ...]
    trials: tuple[Trial, ...]
    importance: Mapping[str, Mapping[str, float]]
    grid: Mapping[str, tuple[Value, ...]] | None = None
    replicate: str = "seed"
    ladder: Ladder | None = None

    @cached_property
    def entered(self) -> tuple[Trial, ...]:
        """The trials that were carried out or are under way, by number, as the sweep counts them: without those that
        failed, wait, or were never set out (a repeat of another or above a limit, which have no folder)."""
        return tuple(trial for trial in self.trials if trial.entered)

    @cached_property
    def comparable(self) -> tuple[Trial, ...]:
        """Trials that have values and keep the constraints, by number: those among which the front is sought."""
        return tuple(trial for trial in self.trials if trial.judged and trial.feasible)

    @cached_property
    def front(self) -> tuple[Trial, ...]:
        """The comparable trials that no other beats in every objective, ordered by the first objective."""
        best = [self.comparable[index] for index in front([self.losses(trial) for trial in self.comparable])]
        return tuple(sorted(best, key=lambda trial: (trial.values[0] or 0.0, trial.number)))

    def losses(self, trial: Trial) -> Point:
        """A judged trial's values, turned so that lower is better in each."""
        signed = zip(trial.figures, self.objectives, strict=True)
        return tuple(-value if objective.maximize else value for value, objective in signed)
