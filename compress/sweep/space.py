"""What makes two sweeps one study: the same parameters, recipes, objectives and constraints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from compress.artifact import hash_of
from compress.errors import UserError
from compress.plan import find_teacher
from compress.recipe import Recipe, stage_key
from compress.sweep.definition import Sweep

if TYPE_CHECKING:
    import optuna

PROBES = 8  # recipes that stand for all that a space may ask for
ATTRIBUTE = "space"
ADDED = {"teacher", "judge", "directions"}  # parts that older studies say nothing of, and so cannot differ in


def fingerprint(sweep: Sweep) -> dict[str, str]:
    """A hash of each part of a sweep that decides what its trials are worth.

    A space is only known by asking it, so it is asked for a few recipes, the same on every machine: which parameters
    they name, and the keys of their stages. A teacher counts by its content, wherever it lies; UserError where it is
    missing.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the study behind it is nobody's business
    asked = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    parameters: list[Any] = []
    recipes: list[Recipe] = []
    for _ in range(PROBES):
        trial = asked.ask()
        recipe = sweep.sample(trial)
        described = {name: describe(distribution) for name, distribution in trial.distributions.items()}
        parameters.append(dict(sorted(described.items())))
        recipes.append(recipe)
    parts: dict[str, Any] = {
        "parameters": parameters,
        "recipe": [[stage_key(stage, []) for stage in recipe.stages] for recipe in recipes],
        "teacher": contents_of(recipes),
        "judge": [None if recipe.judge is None else asdict(recipe.judge) for recipe in recipes],
        "objectives": [[entry.stage, entry.metric, entry.maximize] for entry in sweep.objectives],
        "constraints": [[entry.label, entry.at_most] for entry in sweep.constraints],
        "grid": None if sweep.grid is None else {name: list(values) for name, values in sweep.grid.items()},
    }
    if sweep.ladder is not None:  # studies made before there were ladders have no such part
        rungs = [[[entry.stage, entry.metric] for entry in rung] for rung in sweep.ladder.rungs]
        parts["ladder"] = [rungs, sweep.ladder.factor, sweep.ladder.unselected]
        parts["directions"] = [[entry.maximize for entry in rung] for rung in sweep.ladder.rungs]
    return {name: hash_of(part)[:16] for name, part in parts.items()}


def contents_of(recipes: Sequence[Recipe]) -> list[str | None]:
    """The content hash of each recipe's teacher, looked at once however many share it."""
    hashes: dict[Any, str | None] = {}
    for recipe in recipes:
        if recipe.teacher not in hashes:
            card = find_teacher(recipe)[1]
            hashes[recipe.teacher] = None if card is None else card.content_hash
    return [hashes[recipe.teacher] for recipe in recipes]


def probe(sweep: Sweep) -> Recipe:
    """Some recipe of the space, always the same."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the study behind it is nobody's business
    return sweep.sample(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask())


def describe(distribution: optuna.distributions.BaseDistribution) -> Any:
    """A distribution as plain JSON."""
    import optuna

    return json.loads(optuna.distributions.distribution_to_json(distribution))


def check_space(study: optuna.Study, sweep: Sweep, ours: dict[str, str], where: str) -> None:
    """UserError if another space made the study, or something else did; one without trials becomes this space's, whose
    fingerprint is `ours`."""
    theirs = study.user_attrs.get(ATTRIBUTE)
    directions = ["MAXIMIZE" if objective.maximize else "MINIMIZE" for objective in sweep.objectives]
    if theirs is None and study.get_trials(deepcopy=False):
        what = f"the study {sweep.name!r} holds trials that no sweep of ours made"
        raise UserError.of(what, where, "Give the sweep another name, or another --storage.")
    names = {*ours, *(theirs or ())} - (ADDED - {*(theirs or ())})
    differing = [] if theirs is None else sorted(name for name in names if theirs.get(name) != ours.get(name))
    if [direction.name for direction in study.directions] != directions:
        differing = differing or ["objectives"]
    if differing:
        what = f"the study {sweep.name!r} was made by another space: other {', '.join(differing)}"
        remedy = "Give the sweep another name, or use the version that made the study; its trials do not compare."
        raise UserError.of(what, where, remedy)
    if theirs is None:
        study.set_user_attr(ATTRIBUTE, ours)
