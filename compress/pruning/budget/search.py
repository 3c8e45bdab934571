"""Finds the student that a budget asks for: along the allocation's path to where the limits are met, then around there.

The lattice is coarse (64 channels a step), so a path alone leaves up to a third of the budget unused. From its point
the search visits lattice points in the order of their deviation from the shares that the path wants (best-first), and
takes the first that keeps every limit and uses 99 % of one. From a point that uses less it only goes up, from one that
breaks a limit only down. No size makes a student cheaper as it grows, so this misses none: on the way to a student that
would do, size by size, a point below it has something left to grow and one above it something to shrink. Nothing is
random: the same question has one answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from compress.config.budget import Budget
from compress.errors import Problem, UserError
from compress.pruning.budget.allocation import Path, Scores, deviation, path_of, point_of
from compress.pruning.budget.lattice import Knob, Point, graded, knobs_of, spec_at
from compress.pruning.budget.price import Forward, Price, price
from students.spec import StudentSpec

TOLERANCE = 0.01  # a budget counts as met when at least one limit is used to 99 %
VISITS = 5_000  # lattice points that are priced at most, some seconds
WHERE = "budget"


@dataclass(frozen=True)
class Planned:
    """The student and what it costs. `use` says what part of each limit it takes; `binding` is the limit that is used
    most, None where even the largest student keeps them all. `visited` counts the points that were priced."""

    spec: StudentSpec
    price: Price
    use: Mapping[str, float]
    binding: str | None
    visited: int


@dataclass(frozen=True)
class _Lattice:
    """What is asked, with the price of a point."""

    largest: StudentSpec
    knobs: tuple[Knob, ...]
    budget: Budget
    forward: Forward

    def at(self, point: Point) -> StudentSpec:
        return spec_at(self.largest, self.knobs, point)

    def use(self, spec: StudentSpec) -> dict[str, float]:
        """What part of each limit a spec takes."""
        found = price(spec, self.forward, self.budget.chip)
        return {name: getattr(found, name) / limit for name, limit in self.budget.limits.items()}

    def planned(self, spec: StudentSpec, visited: int, bound: bool = True) -> Planned:
        use = self.use(spec)
        binding = max(use, key=lambda name: use[name]) if bound else None
        return Planned(spec, price(spec, self.forward, self.budget.chip), use, binding, visited)


def plan(
    largest: StudentSpec,
    budget: Budget,
    forward: Forward,
    streams: Sequence[int] | None = None,
    fixed: Sequence[str] = (),
    scores: Scores | None = None,
) -> Planned:
    """The student under `largest` that keeps every limit of the budget and uses at least 99 % of one.

    `largest` has the operators that are wanted and the largest sizes; it is the answer where nothing binds. `streams`
    are the teacher's widths (by default those of `largest`), `fixed` fields stay as they are, `scores` steer the
    allocations "global" and "isomorphic".

    Raises UserError where the smallest student breaks a limit (naming it and the student), where no lattice point lies
    within 1 % below (naming the nearest on either side), and where the operators themselves make no legal student.
    """
    if problems := budget.problems(WHERE):
        raise UserError(*problems)
    lattice = _Lattice(largest, knobs_of(largest, streams or largest.widths, fixed), budget, forward)
    if _kept(lattice.use(largest)):
        return lattice.planned(largest, 1, bound=_used(lattice.use(largest)))
    smallest = lattice.at((0,) * len(lattice.knobs))
    if odd := smallest.problems():
        raise UserError(*(Problem(what, WHERE, remedy) for what, remedy in odd))
    if not _kept(use := lattice.use(smallest)):
        raise _below_the_smallest(lattice, smallest, use)
    seen = _Seen(smallest, largest)
    for spec, use in _around(lattice, path_of(budget.allocation, lattice.knobs, scores)):
        seen.note(spec, use)
        if _kept(use) and _used(use):
            return lattice.planned(spec, seen.count)
        if seen.count == VISITS:
            break
    raise _too_coarse(lattice, seen)


@dataclass
class _Seen:
    """The fullest student that keeps the limits and the emptiest that does not, of those that were priced."""

    below: StudentSpec
    above: StudentSpec
    most: float = 0.0
    least: float = float("inf")
    count: int = 0

    def note(self, spec: StudentSpec, use: Mapping[str, float]) -> None:
        fullest = max(use.values())
        self.count += 1
        if _kept(use) and fullest > self.most:
            self.below, self.most = spec, fullest
        if not _kept(use) and fullest < self.least:
            self.above, self.least = spec, fullest


def describe(spec: StudentSpec) -> str:
    """The sizes that a plan decides, in words."""
    widths, blocks, layers = ("/".join(map(str, s)) for s in _sizes(spec))
    return f"widths {widths}, transformer blocks {blocks}, layers {layers}, feed-forward x{spec.ff_mult}"


def _sizes(spec: StudentSpec) -> tuple[tuple[int, ...], ...]:
    return spec.widths, spec.transformer_layers, spec.layers_per_block


def _kept(use: Mapping[str, float]) -> bool:
    return max(use.values()) <= 1


def _used(use: Mapping[str, float]) -> bool:
    return max(use.values()) >= 1 - TOLERANCE


def _around(lattice: _Lattice, path: Path) -> Iterator[tuple[StudentSpec, dict[str, float]]]:
    """Legal specs and their use along the border of the budget, in the order of their deviation from what the path
    wants where it meets the budget."""
    shares = path(_meeting(lattice, path))
    start = point_of(lattice.knobs, shares)
    heap: list[tuple[float, Point]] = [(deviation(lattice.knobs, start, shares), start)]
    seen = {start}
    while heap:
        _, point = heappop(heap)
        spec = lattice.at(point)
        use = lattice.use(spec)
        if not spec.problems() and graded(spec, lattice.largest):
            yield spec, use
        steps = ([-1] if _used(use) else []) + ([1] if _kept(use) else [])  # both where it would do, were it legal
        for near in _neighbours(lattice.knobs, point, steps):
            if near not in seen:
                seen.add(near)
                heappush(heap, (deviation(lattice.knobs, near, shares), near))


def _meeting(lattice: _Lattice, path: Path) -> float:
    """The largest t at which the path's lattice point keeps the budget, to a thousandth of the path."""
    low, high = 0.0, 2.0
    for _ in range(12):
        middle = (low + high) / 2
        if _kept(lattice.use(lattice.at(point_of(lattice.knobs, path(middle))))):
            low = middle
        else:
            high = middle
    return low


def _neighbours(knobs: Sequence[Knob], point: Point, steps: Sequence[int]) -> Iterator[Point]:
    for index, position in enumerate(point):
        for step in steps:
            if 0 <= position + step < len(knobs[index].values):
                yield (*point[:index], position + step, *point[index + 1 :])


def _below_the_smallest(lattice: _Lattice, smallest: StudentSpec, use: Mapping[str, float]) -> UserError:
    found = price(smallest, lattice.forward, lattice.budget.chip)
    broken = [name for name in use if use[name] > 1]
    limits = " and ".join(f"{name} {lattice.budget.limits[name]:g}" for name in broken)
    has = ", ".join(f"{name} {getattr(found, name):.4g}" for name in broken)
    what = f"no legal student meets {limits}: the smallest ({describe(smallest)}) has {has}"
    return UserError.of(what, WHERE, "Raise the limit to at least that.")


def _too_coarse(lattice: _Lattice, seen: _Seen) -> UserError:
    near = lattice.planned(seen.below, seen.count)
    assert near.binding is not None
    name, had = near.binding, getattr(near.price, near.binding)
    over = getattr(price(seen.above, lattice.forward, lattice.budget.chip), name)
    who = "no legal student" if seen.count < VISITS else f"none of the {VISITS} nearest students"
    what = (
        f"the lattice is too coarse for {name} {lattice.budget.limits[name]:g}: {who} uses 99 % of it and keeps all "
        f"limits; the nearest below ({describe(seen.below)}) has {had:.5g}, the nearest above "
        f"({describe(seen.above)}) {over:.5g}"
    )
    # 0.3 % above what the nearest has, so that it meets the new limit within the tolerance
    return UserError.of(what, WHERE, f"Ask for {name} {1.003 * had:.4g}, or for what the one above has.")
