"""What is tried next: the sampler of a search, the next combination of a grid."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.errors import UserError
from compress.study_record import FOLDER
from compress.sweep.definition import Sweep

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

SAMPLERS = ("tpe", "gp", "nsga2", "nsga3", "random")
POPULATION = 16  # of a generation; Optuna's 50 is more than most studies have trials
STARTUP_TRIALS = 8  # drawn at random before the sampler has anything to go by
GRID_ATTEMPTS = 2  # at a combination that fails


def sampler(seed: int, kind: str = "tpe") -> optuna.samplers.BaseSampler:
    """What draws one trial. A new one for each: a sweep that goes on draws what an unbroken one would have drawn, and
    no two workers the same.

    "tpe": trials that others are at count as bad ones (Optuna's constant liar), so workers look in different places; so
    do those that broke a constraint, the worse the further. "gp" is a Gaussian process, for few and dear trials; it
    models constraints too. "nsga2" and "nsga3" (many objectives) breed from the front, for hundreds of trials.
    """
    from optuna import samplers

    if kind == "gp":
        return samplers.GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
    if kind == "nsga2":
        return samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
    if kind == "nsga3":
        return samplers.NSGAIIISampler(seed=seed, population_size=POPULATION)
    if kind == "random":
        return samplers.RandomSampler(seed=seed)
    assert kind == "tpe", kind
    return samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)


def seed_of(seed: int, number: int) -> int:
    """The seed that draws one trial. Mixed, not added: studies of seeds 0 and 1 would else draw the same trials, one
    later than the other."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def check_sampler(sweep: Sweep) -> None:
    """UserError for a sampler that is not known."""
    if sweep.sampler not in SAMPLERS:
        remedy = f"Use one of {', '.join(SAMPLERS)}."
        raise UserError.of(f"there is no sampler {sweep.sampler!r}", f"sweep {sweep.name!r}", remedy)


def kind_for_next(sweep: Sweep, trials: Sequence[FrozenTrial]) -> str:
    """The sampler that draws the next trial: the sweep's, but random after a trial that it could not learn from. To a
    Gaussian process that is one that broke a constraint; to all, one that repeated another. They would ask for the same
    point again."""
    last = trials[-1] if trials else None
    if last is None or last.state.name != "PRUNED" or FOLDER in last.user_attrs:
        return sweep.sampler
    broke = any(excess > 0 for excess in last.constraints.values())
    return sweep.sampler if broke and sweep.sampler != "gp" else "random"


def next_point(sweep: Sweep, trials: Iterable[FrozenTrial], seed: int) -> dict[str, Any] | None:
    """A combination of the grid that nobody has tried or is at; None if there is none left.

    In random order, so that a grid that is stopped early has tried a bit of everything. Optuna's GridSampler takes a
    failed trial for a tried combination, and leaves it out.
    """
    assert sweep.grid is not None
    names = list(sweep.grid)
    tried: Counter[tuple[Any, ...]] = Counter()
    for trial in trials:
        params = trial.system_attrs.get("fixed_params", {}) | trial.params
        tried[tuple(params.get(name) for name in names)] += 1 if trial.state.name == "FAIL" else GRID_ATTEMPTS
    points = list(itertools.product(*sweep.grid.values()))
    random.Random(seed).shuffle(points)
    left = [point for point in points if tried[point] < GRID_ATTEMPTS]
    if not left:
        return None
    rarest: tuple[Any, ...] = min(left, key=lambda point: tried[point])
    return dict(zip(names, rarest, strict=True))
