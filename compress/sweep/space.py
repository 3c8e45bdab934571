"""What makes two sweeps one study: the same parameters, recipes, objectives and constraints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from compress.artifact import hash_of
from compress.errors import UserError
from compress.recipe import Recipe, stage_key
from compress.sweep.definition import Sweep

if TYPE_CHECKING:
    import optuna

PROBES = 8  # recipes that stand for all that a space may ask for
ATTRIBUTE = "space"


def fingerprint(sweep: Sweep) -> dict[str, str]:
    """A hash of each part of a sweep that decides what its trials are worth.

    A space is only known by asking it, so it is asked for a few recipes, the same on every machine: which parameters
    they name, and the keys of their stages.
    """
    import optuna

    asked = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    parameters: list[Any] = []
    recipes: list[Any] = []
    for _ in range(PROBES):
        trial = asked.ask()
        recipe = sweep.sample(trial)
        described = {name: describe(distribution) for name, distribution in trial.distributions.items()}
        parameters.append(dict(sorted(described.items())))
        recipes.append([stage_key(stage, []) for stage in recipe.stages])
    parts: dict[str, Any] = {
        "parameters": parameters,
        "recipe": recipes,
        "objectives": [[entry.stage, entry.metric, entry.maximize] for entry in sweep.objectives],
        "constraints": [[entry.label, entry.at_most] for entry in sweep.constraints],
        "grid": None if sweep.grid is None else {name: list(values) for name, values in sweep.grid.items()},
    }
    if sweep.ladder is not None:  # studies made before there were ladders have no such part
        rungs = [[[entry.stage, entry.metric] for entry in rung] for rung in sweep.ladder.rungs]
        parts["ladder"] = [rungs, sweep.ladder.factor, sweep.ladder.unselected]
    return {name: hash_of(part)[:16] for name, part in parts.items()}


def probe(sweep: Sweep) -> Recipe:
    """Some recipe of the space, always the same."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the study behind it is nobody's business
    return sweep.sample(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask())


def describe(distribution: optuna.distributions.BaseDistribution) -> Any:
    """A distribution as plain JSON."""
    import optuna

    return json.loads(optuna.distributions.distribution_to_json(distribution))


def check_space(study: optuna.Study, sweep: Sweep, where: str) -> None:
    """UserError if another space made the study; a study that says nothing, and has no trials, becomes this one's."""
    ours, theirs = fingerprint(sweep), study.user_attrs.get(ATTRIBUTE)
    directions = ["MAXIMIZE" if objective.maximize else "MINIMIZE" for objective in sweep.objectives]
    names = {*ours, *(theirs or ())}
    differing = [] if theirs is None else sorted(name for name in names if theirs.get(name) != ours.get(name))
    if [direction.name for direction in study.directions] != directions:
        differing = differing or ["objectives"]
    if differing:
        what = f"the study {sweep.name!r} was made by another space: other {', '.join(differing)}"
        remedy = "Give the sweep another name, or use the version that made the study; its trials do not compare."
        raise UserError.of(what, where, remedy)
    if theirs is None:
        study.set_user_attr(ATTRIBUTE, ours)
