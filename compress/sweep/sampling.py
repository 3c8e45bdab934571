"""What is tried next: the sampler of a search, the next combination of a grid."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from compress.sweep.definition import Sweep

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

STARTUP_TRIALS = 8  # drawn at random before the sampler has anything to go by
GRID_ATTEMPTS = 2  # at a combination that fails


def sampler(seed: int) -> optuna.samplers.BaseSampler:
    """What draws one trial. A new one for each: a sweep that goes on draws what an unbroken one would have drawn, and
    no two workers the same.

    Trials that others are at count as bad ones (Optuna's constant liar), so workers look in different places; so do
    those that broke a constraint, the worse the further.
    """
    import optuna

    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)


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
