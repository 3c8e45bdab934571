"""From scores of single weights to one score a channel, head or neuron, and one a layer.

A criterion scores entries of parameters; what is kept of them is their sums along each axis, because a unit owns whole
slices. That is all that groups and layers ask for, and at full size it is megabytes where the entries are gigabytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from compress.pruning.groups import Group

Place = tuple[str, int]  # (parameter, axis)


@dataclass
class Saliency:
    """`along[parameter, axis][i]` is the score of all entries with index i on that axis, in double precision on the
    CPU. Axes 0 and 1 are kept, output and input; what is absent scores 0."""

    along: dict[Place, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Mapping[str, Tensor]) -> Saliency:
        """From one score an entry, in the parameters' shapes."""
        saliency = cls()
        for name, scores in entries.items():
            saliency.add(name, scores)
        return saliency

    def add(self, name: str, entries: Tensor) -> None:
        """Adds scores of a parameter's entries, in its shape."""
        for axis in range(min(entries.dim(), 2)):
            others = [other for other in range(entries.dim()) if other != axis]
            self.add_along(name, axis, entries.sum(others) if others else entries)

    def add_along(self, name: str, axis: int, scores: Tensor) -> None:
        """Adds scores along one axis only, for criteria that see a unit where it is read and not where it is made."""
        added = scores.double().cpu()
        self.along[name, axis] = self.along[name, axis] + added if (name, axis) in self.along else added

    def layer(self, prefix: str) -> float:
        """The score of everything under a module's name."""
        return float(
            sum(s.sum() for (name, axis), s in self.along.items() if not axis and name.startswith(f"{prefix}."))
        )


def unit_scores(group: Group, saliency: Saliency) -> Tensor:
    """One score a unit, shape (units,): the saliency of all entries that it owns, in double precision."""
    total = torch.zeros(group.units, dtype=torch.float64)
    for member in group.members:
        scores = saliency.along.get((member.parameter, member.axis))
        if scores is not None:
            total += scores[member.index_us].sum(dim=1)
    return total


def layer_score(prefix: str, saliency: Saliency) -> float:
    """The saliency of everything under a module's name."""
    return saliency.layer(prefix)
