"""Ends trials that fall behind while they train: Optuna's pruners, told by the learning curve of one stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from compress.artifact import CARD, load_card
from compress.errors import Problem, UserError
from compress.recipe import Recipe
from compress.sweep.definition import EarlyStop, Sweep

if TYPE_CHECKING:
    import optuna

PRUNERS = ("median", "hyperband")
STARTUP_TRIALS = 4  # finished ones, before the median says anything
FACTOR = 3  # of hyperband


def check_early_stop(sweep: Sweep) -> None:
    """UserError with every reason why the sweep cannot stop trials as it says."""
    early, where, found = sweep.early_stop, f"sweep {sweep.name!r}", []
    if early is None:
        return
    if len(sweep.objectives) > 1:
        what = f"it stops trials early, by one figure, but trades off {len(sweep.objectives)} objectives"
        found.append(Problem(what, where, "Use a ladder, which compares trials by all of them."))
    if sweep.ladder is not None:
        found.append(Problem("it has a ladder and stops trials early", where, "Leave one of them out."))
    if early.pruner not in PRUNERS:
        found.append(Problem(f"early_stop.pruner is {early.pruner!r}", where, f"Use one of {', '.join(PRUNERS)}."))
    last = early.last_step
    if early.pruner == "hyperband" and (last is None or last <= early.first_step):
        remedy = f"Give the stage's number of steps; it comes after first_step, {early.first_step}."
        found.append(Problem(f"early_stop.last_step is {last}", where, remedy))
    if found:
        raise UserError(*found)


def pruner(sweep: Sweep) -> optuna.pruners.BasePruner:
    """What decides that a trial has fallen behind; of a sweep without early stops, nothing does."""
    import optuna

    early = sweep.early_stop
    if early is None:
        return optuna.pruners.NopPruner()
    if early.pruner == "median":
        return optuna.pruners.MedianPruner(STARTUP_TRIALS, n_warmup_steps=early.first_step)
    assert early.last_step is not None, "checked before"
    return optuna.pruners.HyperbandPruner(early.first_step, early.last_step, FACTOR)


class Watch:
    """Reports one trial's curve to its study, and raises optuna.TrialPruned when it has fallen behind.

    A step is reported once: a trial that was taken over, or whose stage resumes, has told its first ones already.
    """

    def __init__(self, trial: optuna.Trial, early: EarlyStop) -> None:
        self._trial, self._early = trial, early
        told = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        self._told = max(told, default=0)

    def __call__(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        """One point of a stage's learning curves."""
        import optuna

        if stage != self._early.stage or self._early.curve not in figures:
            return
        self.report(step, figures[self._early.curve])
        if self._trial.should_prune():
            raise optuna.TrialPruned(f"behind others by {self._early.curve} after {step} steps of {stage}")

    def report(self, step: int, value: float) -> None:
        """Tells the study one point, if it is new."""
        if step > self._told:
            self._told = step
            self._trial.report(value, step)

    def replay(self, recipe: Recipe, out: Path) -> None:
        """Tells what the stage's card says of a curve that another trial drew: others are compared with it too."""
        folder = out / recipe.folder_of(recipe.stages[recipe.index(self._early.stage, "early_stop")])
        if (folder / CARD).exists():
            for step, value in load_card(folder).curves.get(self._early.curve, []):
                if step is not None and value is not None:
                    self.report(int(step), value)
