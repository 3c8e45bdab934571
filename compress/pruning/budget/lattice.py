"""The lattice of legal students under a largest one: which sizes can change, in which steps, and which go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from students.spec import LATTICE, NONE, StudentSpec, with_heads

Point = tuple[int, ...]  # for every knob the position among its values
WIDTHS, BLOCKS, LAYERS, NEURONS = "widths", "transformer_layers", "layers_per_block", "ff_mult"
SCALED = (WIDTHS, BLOCKS)  # these take the cut; the others only fit the rest of the budget


@dataclass(frozen=True)
class Knob:
    """One size of a spec. `values` ascend to the largest; `stages` move together (none for a size of the whole)."""

    field: str
    stages: tuple[int, ...]
    values: tuple[int, ...]

    @property
    def scaled(self) -> bool:
        return self.field in SCALED

    def share(self, position: int) -> float:
        """A value as a part of the largest, in (0, 1]."""
        return self.values[position] / self.values[-1]

    def nearest(self, share: float) -> int:
        """The position whose share is nearest; of two the smaller."""
        return min(range(len(self.values)), key=lambda position: (abs(self.share(position) - share), position))


def knobs_of(largest: StudentSpec, streams: Sequence[int], fixed: Sequence[str] = ()) -> tuple[Knob, ...]:
    """Every size of `largest` that can be made smaller, fields named in `fixed` left out.

    Heads are no knob of their own: a legal student has one for every 64 channels. Neighbouring stages whose `streams`
    (the teacher's widths) are equal carry one residual stream, so they stay of one width. Transformer blocks of a stage
    that attends nowhere cost nothing and stay as they are; so do depths that differ from layer to layer, for a number a
    stage cannot make them smaller.
    """
    found = [Knob(WIDTHS, stages, _widths(largest.widths[stages[0]])) for stages in tied(streams)]
    for stage in range(largest.stages):
        if largest.down_depths is not None:
            break
        attends = {largest.down_attention[stage], largest.up_attention[stage]} != {NONE}
        if attends or (stage == largest.stages - 1 and largest.middle_depth):
            found.append(Knob(BLOCKS, (stage,), _from_one(largest.transformer_layers[stage])))
        found.append(Knob(LAYERS, (stage,), _from_one(largest.layers_per_block[stage])))
    found.append(Knob(NEURONS, (), _from_one(largest.ff_mult)))
    return tuple(knob for knob in found if len(knob.values) > 1 and knob.field not in fixed)


def spec_at(largest: StudentSpec, knobs: Sequence[Knob], point: Point) -> StudentSpec:
    """The student at a point of the lattice."""
    changes: dict[str, Any] = {}
    for knob, position in zip(knobs, point, strict=True):
        value = knob.values[position]
        if not knob.stages:
            changes[knob.field] = value
            continue
        sizes = changes.get(knob.field, getattr(largest, knob.field))
        changes[knob.field] = tuple(value if stage in knob.stages else size for stage, size in enumerate(sizes))
    spec = replace(largest, **changes)
    return with_heads(spec) if WIDTHS in changes else spec


def graded(spec: StudentSpec, largest: StudentSpec) -> bool:
    """Whether widths fall from one stage to the next only where those of the largest do: U-Nets keep more channels
    where they keep fewer pixels, and a fine fit to a budget is no reason to turn that around."""
    pairs = zip(pairwise(spec.widths), pairwise(largest.widths), strict=True)
    return all(upper <= lower or most_upper > most_lower for (upper, lower), (most_upper, most_lower) in pairs)


def tied(streams: Sequence[int]) -> list[tuple[int, ...]]:
    """Runs of neighbouring stages of equal width."""
    runs = [[0]]
    for stage in range(1, len(streams)):
        if streams[stage] == streams[stage - 1]:
            runs[-1].append(stage)
        else:
            runs.append([stage])
    return [tuple(run) for run in runs]


def _widths(largest: int) -> tuple[int, ...]:
    return tuple(range(LATTICE, largest + 1, LATTICE)) or (largest,)


def _from_one(largest: int) -> tuple[int, ...]:
    return tuple(range(1, largest + 1))
