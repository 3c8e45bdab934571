"""From scores to kept units, and from kept units to slices of every tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from compress.pruning.groups import Group


def keep_best(scores: Tensor, count: int, norm_groups: int = 0) -> Tensor:
    """Indices of the `count` best of the units, ascending; ties go to the earlier unit.

    Where a GroupNorm reads the units, each of its groups keeps the same number: a group of the student then holds
    channels of one group of the teacher, whose mean and variance they approximate. That needs both numbers to be
    multiples of `norm_groups`; otherwise the best are taken wherever they are.
    """
    units = len(scores)
    if not 0 < count <= units:
        raise ValueError(f"cannot keep {count} of {units} units")
    if norm_groups and units % norm_groups == 0 and count % norm_groups == 0:
        blocks = scores.reshape(norm_groups, -1)
        best = blocks.argsort(dim=1, descending=True, stable=True)[:, : count // norm_groups]
        return (best + torch.arange(norm_groups)[:, None] * blocks.shape[1]).flatten().sort().values
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def slices(groups: Iterable[Group], kept: Mapping[str, Tensor]) -> dict[tuple[str, int], Tensor]:
    """(parameter, axis) -> entries that remain, ascending. `kept` maps a group's name to its kept units.

    Several groups may meet on one axis (a concatenation); together they must name each entry of it exactly once.
    """
    found: dict[tuple[str, int], list[Tensor]] = {}
    for group in groups:
        for member in group.members:
            entries = member.index_us[kept[group.name]].flatten()
            found.setdefault((member.parameter, member.axis), []).append(entries)
    return {place: torch.cat(entries).sort().values for place, entries in found.items()}


def cut(tensor: Tensor, name: str, kept: Mapping[tuple[str, int], Tensor]) -> Tensor:
    """The tensor with only the kept entries along every axis that has some."""
    for axis in range(tensor.dim()):
        if (name, axis) in kept:
            tensor = tensor.index_select(axis, kept[name, axis].to(tensor.device))
    return tensor


def best_subset(scores: list[float], count: int, legal: Iterable[tuple[int, ...]] | None = None) -> tuple[int, ...]:
    """The `count` layers with the largest total score, in order, among `legal` subsets (by default all of them)."""
    options = list(combinations(range(len(scores)), count) if legal is None else legal)
    if not options:
        raise ValueError(f"no way to keep {count} of {len(scores)} layers")
    return max(options, key=lambda option: sum(scores[layer] for layer in option))


Option = tuple[float, int]  # (cost, size)


def cheapest_mix(slots: Sequence[Sequence[Option]], capacity: int) -> list[int]:
    """Which option of each slot to take so that the sizes sum to at most `capacity` and the costs to the least; of
    equal costs the smaller. The multiple-choice knapsack, solved exactly by keeping undominated partial sums.

    Raises ValueError, with the smallest possible size, where nothing fits.
    """
    least = sum(min(size for _, size in slot) for slot in slots)
    if least > capacity:
        raise ValueError(f"the smallest mix has size {least}, the limit is {capacity}")
    front: list[tuple[int, float, list[int]]] = [(0, 0.0, [])]
    for slot in slots:
        reached = sorted(
            (size + more_size, cost + more_cost, [*picked, index])
            for size, cost, picked in front
            for index, (more_cost, more_size) in enumerate(slot)
        )
        front = []
        for candidate in reached:
            if not front or candidate[1] < front[-1][1]:
                front.append(candidate)
    return min((cost, size, picked) for size, cost, picked in front if size <= capacity)[2]
