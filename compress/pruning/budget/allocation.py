"""How stages share a cut: from one number between nothing and everything to a wanted share of every knob.

Every allocation is a path: as `t` falls from 2 to 1 the widths and the transformer blocks shrink to the least there is,
and from 1 to 0 what is left (layers, feed-forward) does too. No share grows on the way, so costs never do, and the
point where a budget is met can be found by bisection.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from math import log

from compress.config.budget import GLOBAL, UNIFORM
from compress.pruning.budget.lattice import Knob, Point

# (field, first stage) of a knob -> the score of every unit of it, in any order; units are channels or blocks.
Scores = Mapping[tuple[str, int], Sequence[float]]
Shares = tuple[float, ...]
Path = Callable[[float], Shares]


def path_of(allocation: str, knobs: Sequence[Knob], scores: Scores | None) -> Path:
    """The path of an allocation; without scores, all are uniform."""
    if allocation == UNIFORM or scores is None:
        wanted = _uniform(knobs)
    else:
        wanted = _by_scores(knobs, scores, together=allocation == GLOBAL)

    def path(t: float) -> Shares:
        return tuple(
            share if knob.scaled else min(t, 1.0) for knob, share in zip(knobs, wanted(max(t - 1, 0.0)), strict=True)
        )

    return path


def point_of(knobs: Sequence[Knob], shares: Shares) -> Point:
    """The lattice point nearest to the shares."""
    return tuple(knob.nearest(share) for knob, share in zip(knobs, shares, strict=True))


def deviation(knobs: Sequence[Knob], point: Point, shares: Shares) -> float:
    """Sum of squared log ratios between a point's shares and the wanted ones: halving counts as much as doubling."""
    return sum(
        log(knob.share(position) / max(share, knob.share(0))) ** 2
        for knob, position, share in zip(knobs, point, shares, strict=True)
    )


def _uniform(knobs: Sequence[Knob]) -> Path:
    return lambda ratio: (ratio,) * len(knobs)


def _by_scores(knobs: Sequence[Knob], scores: Scores, together: bool) -> Path:
    """Of all units (`together`), or of the units of each field, the best `ratio` stay; a knob's share is how many of
    its own are among them. A knob without scores takes the ratio itself."""
    pools: dict[str, list[float]] = {}
    own: dict[int, list[float]] = {}
    for index, knob in enumerate(knobs):
        if knob.scaled and (units := scores.get((knob.field, knob.stages[0]))):
            own[index] = sorted(units)
            pools.setdefault("" if together else knob.field, []).extend(units)
    for pool in pools.values():
        pool.sort()

    def share(index: int, knob: Knob, ratio: float) -> float:
        if index not in own or ratio >= 1:
            return ratio
        pool, units = pools["" if together else knob.field], own[index]
        dropped = round((1 - ratio) * len(pool))
        return 1.0 if dropped == 0 else 1 - bisect_right(units, pool[dropped - 1]) / len(units)

    return lambda ratio: tuple(share(index, knob, ratio) for index, knob in enumerate(knobs))
