"""How far the velocity moves when one dependency group alone is pruned: its lowest-scored units are set to zero.

Nothing is cut and nothing is made up for, so one network serves all measurements and is left as it was. Zeroing all
that a unit owns computes what cutting it does: exactly for heads and neurons, nearly for channels that a norm reads,
because the norm still counts the zeros in its mean and variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.pruning.calibration import Noised, predictions, velocity_mse
from compress.pruning.groups import Group
from compress.pruning.importance import Saliency, unit_scores
from compress.pruning.select import keep_best


@dataclass(frozen=True)
class Row:
    """The velocity error when `dropped` of a group's units are gone, where a share `ratio_units` of them was to go."""

    group: str
    kind: str
    units: int
    ratio_units: float
    dropped: int
    velocity_mse: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def sensitivity(
    unet: nn.Module,
    groups: Sequence[Group],
    saliency: Saliency,
    ratios_units: Sequence[float],
    batches: Sequence[Noised],
    reference: Sequence[Tensor] | None = None,
    on_group: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """One row a group and ratio in 0..1, in their order; the network is restored bit for bit.

    The error is the mean squared difference to `reference`, the velocities of some teacher for the batches; by default
    to the network's own, so that 0 is no change. `on_group` is called with the last row of each group.
    Ratios that drop equally many of few units share a measurement.
    """
    reference = predictions(unet, batches) if reference is None else reference
    rows: list[Row] = []
    for group in groups:
        scores, errors = unit_scores(group, saliency), dict[int, float]()
        for ratio in ratios_units:
            dropped = lowest(scores, ratio, group.norm_groups)
            count = len(dropped)
            if count not in errors:
                with without(unet, group, dropped):
                    errors[count] = velocity_mse(unet, batches, reference)
            rows.append(Row(group.name, group.kind, group.units, ratio, count, errors[count]))
        on_group(rows[-1])
    return rows


def lowest(scores: Tensor, ratio_units: float, norm_groups: int = 0) -> Tensor:
    """The units that pruning drops of a group, ascending: all but the best (keep_best). Their number is rounded, halves
    up, but one unit stays unless all are to go."""
    units = len(scores)
    keep = max(units - math.floor(ratio_units * units + 0.5), int(ratio_units < 1))
    stays = torch.zeros(units, dtype=torch.bool)
    if keep:
        stays[keep_best(scores, keep, norm_groups)] = True
    return (~stays).nonzero().flatten()


@contextmanager
def without(unet: nn.Module, group: Group, dropped: Tensor) -> Iterator[None]:
    """While open, everything that these units of the group own is zero."""
    saved: list[tuple[Tensor, int, Tensor, Tensor]] = []
    try:
        for member in group.members:
            parameter = unet.get_parameter(member.parameter).detach()  # the same memory
            entries = member.index_us[dropped].flatten().to(parameter.device)
            saved.append((parameter, member.axis, entries, parameter.index_select(member.axis, entries)))
            parameter.index_fill_(member.axis, entries, 0)
        yield
    finally:
        for parameter, axis, entries, values in reversed(saved):  # one tensor may have been zeroed along both axes
            parameter.index_copy_(axis, entries, values)
