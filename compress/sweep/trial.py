"""One trial: parameters in, values out. Constraints come first, for they cost nothing; then the run."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.artifact import CARD, load_card, write_json
from compress.errors import UserError
from compress.pipeline import run
from compress.plan import Options, Plan
from compress.progress import LineProgress, TerminalProgress
from compress.recipe import Recipe
from compress.study_record import FOLDER, STAGES
from compress.sweep.definition import Objective, Sweep, trial_folder
from compress.sweep.early import Watch
from compress.sweep.ladder import climb_of, entered, goal

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

RECORD = "trial.json"  # in the trial's run folder: what it came to, for who reads files alone
RUN, REUSED = "run", "reused"


class Infeasible(Exception):
    """A trial that is not to be carried out, and why: it breaks a constraint, or repeats another."""


@dataclass(frozen=True)
class Setting:
    """Where and how the trials of a sweep run."""

    sweep: Sweep
    folder: Path  # the sweep's
    runs: Path
    device: str
    progress: TerminalProgress | LineProgress
    store: str | None = None  # of artefacts
    held: dict[str, Any] = field(default_factory=dict)  # what trials leave in memory for the next


def carry_out(trial: optuna.Trial, setting: Setting) -> tuple[float, ...]:
    """Runs the trial's recipe in its own folder, of a ladder to the rung it is sent to, and returns the values there;
    the same trial may be carried out again after a kill. Raises Infeasible before any work, and optuna.TrialPruned
    where the sweep stops trials early."""
    began_s = time.monotonic()
    recipe = setting.sweep.sample(trial)
    recipe.check()
    check_constraints(trial, setting.sweep, recipe)
    check_twins(trial, setting.sweep)
    objectives, until = goal(setting.sweep, recipe, climb_of(trial.user_attrs).target)
    out = setting.folder / trial_folder(trial.params)
    trial.set_user_attr(FOLDER, out.name)
    said = ", ".join(f"{name} {value}" for name, value in trial.params.items())
    setting.progress.message(f"trial {trial.number}{f', to {until}' if until else ''}: {said}")
    watch = Watch(trial, setting.sweep.early_stop) if setting.sweep.early_stop else None
    (out / RECORD).unlink(missing_ok=True)  # without it the trial counts as unfinished, and nothing of it is collected
    options = Options(
        out,
        setting.runs,
        until=until,
        device=setting.device,
        wait=True,
        watch=watch,
        store=setting.store,
        held=setting.held,
    )
    plan = run(recipe, options, setting.progress)
    if watch is not None:
        watch.replay(recipe, out)
    values = tuple(value_of(objective, recipe, out) for objective in objectives)
    stages = how_made(plan)
    trial.set_user_attr(STAGES, stages)
    took_s = round(time.monotonic() - began_s, 2)
    if until is None:
        write_record(out, trial, values=values, wall_s=took_s, **{STAGES: stages})
    return values


def write_record(out: Path, trial: optuna.Trial | FrozenTrial, **fields: Any) -> None:
    """Notes in a trial's run folder that it is over and what it came to; without values it came to nothing."""
    write_json(out / RECORD, {"number": trial.number, "params": trial.params, "values": None, **fields})


def check_constraints(trial: optuna.Trial, sweep: Sweep, recipe: Recipe) -> None:
    """Tells the sampler how far the recipe is from each limit; raises Infeasible where it is above one."""
    found = [(constraint, constraint.value(recipe)) for constraint in sweep.constraints]
    with warnings.catch_warnings():  # a trial that another worker began has told them already
        warnings.filterwarnings("ignore", message="The constraint value is ignored")
        for constraint, value in found:
            trial.set_constraint(constraint.label, constraint.excess(value))
    broken = [f"{c.label} is {value:.4g}, at most {c.at_most:.4g}" for c, value in found if value > c.at_most]
    if broken:
        raise Infeasible("; ".join(broken))


def check_twins(trial: optuna.Trial, sweep: Sweep) -> None:
    """Raises Infeasible for a new trial with the parameters of one that was carried out or is being so: runs are
    deterministic, and samplers like to return to the best point they know."""
    if sweep.grid is not None or FOLDER in trial.user_attrs:  # a grid repeats what failed; a trial may go on
        return
    for other in trial.study.get_trials(deepcopy=False):
        first = other.number < trial.number or FOLDER in other.user_attrs  # of two that begin at once, one gives way
        if other.number != trial.number and first and entered(other) and other.params == trial.params:
            raise Infeasible(f"the same as trial {other.number}")


def how_made(plan: Plan) -> dict[str, str]:
    """For every stage whether this trial computed it, now or before it was interrupted, or needed not."""
    made = {}
    for step in plan.steps:
        own = (step.folder / CARD).exists() and load_card(step.folder).reused_from is None
        made[step.label] = RUN if own else REUSED
    return made


def value_of(objective: Objective, recipe: Recipe, out: Path) -> float:
    """The objective's value on the card of a finished trial, or by its recipe. ArithmeticError where it is not finite,
    UserError where the card has no such metric."""
    if objective.value is not None:
        value: float | None = objective.value(recipe)
    else:
        stage = recipe.stages[recipe.index(objective.stage, "objective")]
        metrics = load_card(out / recipe.folder_of(stage)).metrics
        if objective.metric not in metrics:
            remedy = f"Name one of the card's metrics: {', '.join(sorted(metrics))}."
            raise UserError.of(f"there is no metric {objective.metric!r}", f"stage {objective.stage!r}", remedy)
        value = metrics[objective.metric]  # a card has None where a number was not finite
    if value is None or not math.isfinite(value):
        raise ArithmeticError(f"{objective.label} is not finite")
    return value
