"""What nothing beats, and how much of the space it covers. Points are losses: lower is better in every coordinate."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, ...]
MOST_OBJECTIVES = 3  # exact volumes beyond that take too long for a report


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is nowhere worse and somewhere better."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other dominates, in their own order; equal points stay together."""
    kept: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: points[i]):  # nothing later dominates anything earlier
        if not any(dominates(points[other], points[index]) for other in kept):
            kept.append(index)
    return sorted(kept)


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Volume that the points dominate within the box that `reference` closes; exact, 0 without points."""
    return coverage(points, reference)[-1] if points else 0.0


def coverage(points: Sequence[Point], reference: Point) -> list[float]:
    """The hypervolume after each of the points in turn.

    Each adds the part of its box that no earlier one covers: While, Bradstreet and Barone, "A fast way of calculating
    exact hypervolumes" (2012), equation 3, one point after another instead of over a sorted set.
    """
    kept: list[Point] = []
    covered, history = 0.0, []
    for point in points:
        if not any(other == point or dominates(other, point) for other in kept):
            covered += _exclusive(point, kept, reference)
            kept = [other for other in kept if not dominates(point, other)] + [point]
        history.append(covered)
    return history


def _exclusive(point: Point, others: Sequence[Point], reference: Point) -> float:
    """Volume that `point` dominates and none of `others` does."""
    box = math.prod(max(0.0, r - x) for r, x in zip(reference, point, strict=True))
    limited = sorted({tuple(map(max, point, other)) for other in others})
    worth = [limited[index] for index in front(limited)]
    return box - hypervolume(worth, reference) if box > 0 else 0.0


def unit_box(points: Sequence[Point], reference: Sequence[float | None]) -> list[Point]:
    """The points with each coordinate scaled so that its best value is 0, and 1 is the reference, else the worst."""
    columns = zip(zip(*points, strict=True), reference, strict=True)
    return list(zip(*(_scaled(column, end) for column, end in columns), strict=True))


def _scaled(column: Point, end: float | None) -> list[float]:
    low = min(column)
    if end is not None and low >= end:  # nothing is worth anything
        return [1.0] * len(column)
    span = (max(column) if end is None else end) - low or 1.0
    return [(x - low) / span for x in column]
