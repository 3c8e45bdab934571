"""Fidelity by fidelity: trials stop at each rung of a ladder, and only the best of those that got there climb on.

Asynchronous successive halving (Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020, algorithm 2):
of the n trials that have reached a rung, n // factor may climb on, as soon as they are among the best; nobody waits for
the others. A trial that stops keeps its run folder, so one that climbs later goes on from its last stage.

What a trial has climbed is its user attribute `CLIMB`: {"target": the rung it is sent to, "values": those of each rung
below the top that it has reached, "wall_s": what each rung took}. For Optuna it runs until it is complete, or can climb
no more (then it is pruned).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.errors import Problem, UserError
from compress.recipe import Recipe
from compress.study_record import CLIMB, FOLDER
from compress.sweep.definition import Objective, Sweep
from compress.sweep.front import best, losses_of, reference_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Climb:
    """Where a trial stands: the rung it is sent to, and values and seconds of those it has reached."""

    target: int = 0
    values: tuple[tuple[float, ...], ...] = ()
    wall_s: tuple[float, ...] = ()

    @property
    def rests(self) -> bool:
        """Whether it has reached the rung that it was sent to."""
        return len(self.values) > self.target

    def reached(self, values: Sequence[float] | None, wall_s: float) -> Climb:
        """The climb with its target reached; without values that is the top. It may be reached again, after a kill."""
        below, spent = self.values[: self.target], self.wall_s[: self.target]
        return Climb(self.target, (*below, *([] if values is None else [tuple(values)])), (*spent, round(wall_s, 2)))

    def sent_on(self) -> Climb:
        """The climb with the next rung as its target."""
        return Climb(len(self.values), self.values, self.wall_s)

    def as_json(self) -> dict[str, Any]:
        """As a user attribute."""
        return {"target": self.target, "values": [list(row) for row in self.values], "wall_s": list(self.wall_s)}


def climb_of(attributes: Mapping[str, Any]) -> Climb:
    """A trial's climb, by its user attributes; of a new one, that to the first rung."""
    raw = attributes.get(CLIMB)
    if raw is None:
        return Climb()
    return Climb(int(raw["target"]), tuple(tuple(row) for row in raw["values"]), tuple(raw["wall_s"]))


def rests(trial: FrozenTrial) -> bool:
    """Whether a trial waits on its rung for leave to climb on; nobody is at work at it."""
    return trial.state.name == "RUNNING" and climb_of(trial.user_attrs).rests


def ended(trial: FrozenTrial) -> bool:
    """Whether a trial counts as carried out: complete, or stopped on its way. One above a limit never set out."""
    return trial.state.name == "COMPLETE" or (trial.state.name == "PRUNED" and FOLDER in trial.user_attrs)


def entered(trial: FrozenTrial) -> bool:
    """Whether a trial counts among those that were asked for: carried out, or on its way."""
    return ended(trial) or trial.state.name == "RUNNING"


def check_ladder(sweep: Sweep) -> None:
    """UserError with every mistake in the sweep's ladder."""
    ladder, where = sweep.ladder, f"sweep {sweep.name!r}"
    if ladder is None:
        return
    found = []
    if not ladder.rungs:
        found.append(Problem("its ladder has no rungs", where, "Give at least one below the objectives."))
    for place, rung in enumerate(ladder.rungs):
        if len(rung) != len(sweep.objectives):
            what = f"rung {place} has {len(rung)} stand-ins for {len(sweep.objectives)} objectives"
            found.append(Problem(what, where, "Give one for each, in the sweep's order."))
    if ladder.factor < 2:
        found.append(Problem(f"its ladder's factor is {ladder.factor}", where, "Use 2 or more, for example 3."))
    if sweep.grid is not None:
        found.append(Problem("it has a grid and a ladder", where, "A grid tries everything: leave one of them out."))
    if found:
        raise UserError(*found)


def goal(sweep: Sweep, recipe: Recipe, target: int) -> tuple[tuple[Objective, ...], str | None]:
    """By what a trial is judged on a rung, and the stage to run to; None is the last. The top rung is the sweep's own
    objectives."""
    if sweep.ladder is None or target >= len(sweep.ladder.rungs):
        return sweep.objectives, None
    rung = sweep.ladder.rungs[target]
    last = max(recipe.index(entry.stage, f"rung {target}") for entry in rung)
    return rung, recipe.stages[last].name


def climbers(trials: Sequence[FrozenTrial], sweep: Sweep, wanted: int) -> list[FrozenTrial]:
    """The resting trials that may climb on, the highest first.

    Once all that are `wanted` have reached a rung, at least one of them climbs on, however few they are, and another
    if that one failed.
    """
    if sweep.ladder is None:
        return []
    present = [trial for trial in trials if entered(trial)]
    climbs = {trial.number: climb_of(trial.user_attrs) for trial in present}
    busy = [climbs[t.number].target for t in present if t.state.name == "RUNNING" and not climbs[t.number].rests]
    blind = {trial.number for trial in sorted(present, key=lambda t: t.number)[: sweep.ladder.unselected]}
    found: list[FrozenTrial] = []
    closed = len(present) >= wanted
    for rung in range(len(sweep.ladder.rungs)):
        closed = closed and all(target > rung for target in busy)
        here = [trial for trial in present if len(climbs[trial.number].values) > rung]
        count = len(here) // sweep.ladder.factor
        good = blind | best_of(here, sweep, rung, count)
        if closed and not any(_beyond(trial, rung) for trial in here):
            good |= best_of([trial for trial in here if rests(trial)], sweep, rung, 1)
        ready = [t for t in here if t.number in good and rests(t) and climbs[t.number].target == rung]
        closed = closed and not ready
        found = ready + found
    return found


def _beyond(trial: FrozenTrial, rung: int) -> bool:
    """Whether a trial is on its way to a rung above this one, or has been there."""
    return trial.state.name == "COMPLETE" or climb_of(trial.user_attrs).target > rung


def best_of(trials: Sequence[FrozenTrial], sweep: Sweep, rung: int, count: int) -> set[int]:
    """Numbers of the `count` best trials by what they were worth on a rung."""
    if not trials or not count:
        return set()
    assert sweep.ladder is not None
    losses = losses_on(trials, sweep, rung)
    return {trials[index].number for index in best(losses, count, reference_of(losses, sweep.ladder.rungs[rung]))}


def losses_on(trials: Sequence[FrozenTrial], sweep: Sweep, rung: int) -> Any:
    """What trials were worth on a rung they have reached, lower is better; an array (trials, objectives)."""
    assert sweep.ladder is not None
    return losses_of([climb_of(trial.user_attrs).values[rung] for trial in trials], sweep.ladder.rungs[rung])


def hopeless(trials: Sequence[FrozenTrial], sweep: Sweep, wanted: int) -> list[FrozenTrial]:
    """Resting trials that can never climb on, whoever comes after: enough others beat them in every objective.

    Those that were stopped here do not count: whoever beat them counts, unless it failed since.
    """
    assert sweep.ladder is not None
    present = sorted((trial for trial in trials if entered(trial)), key=lambda trial: trial.number)
    blind = {trial.number for trial in present[: sweep.ladder.unselected]}
    most, found = max(1, wanted // sweep.ladder.factor), []
    for rung in range(len(sweep.ladder.rungs)):
        here = [trial for trial in present if len(climb_of(trial.user_attrs).values) > rung]
        if not here:
            break
        losses = losses_on(here, sweep, rung)
        alive = np.array([trial.state.name == "RUNNING" or _beyond(trial, rung) for trial in here])
        for index, trial in enumerate(here):
            better = (losses <= losses[index]).all(axis=1) & (losses < losses[index]).any(axis=1) & alive
            resting = rests(trial) and climb_of(trial.user_attrs).target == rung
            if resting and int(np.sum(better)) >= most and trial.number not in blind:
                found.append(trial)
    return found


def why_stopped(trial: FrozenTrial, sweep: Sweep) -> str:
    """What a trial's record says of why it went no further."""
    assert sweep.ladder is not None
    rung = sweep.ladder.rungs[climb_of(trial.user_attrs).target]
    return f"not among the best 1/{sweep.ladder.factor} by {', '.join(entry.label for entry in rung)}"
