"""What a spec costs, by formula, in the units that limits are given in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from compress.latency import CHIPS, Estimate, seconds
from compress.operations import Part, parts
from students.spec import StudentSpec


@dataclass(frozen=True)
class Forward:
    """The forward that MACs and latency are of: a latent of height x width (a pair counts its full width) and text of
    `tokens` tokens."""

    height: int
    width: int
    tokens: int


@dataclass(frozen=True)
class Price:
    """Cost of one network and of one forward of it on one chip; as in `compress.cost.Cost`, with the time estimated."""

    parameters_m: float
    macs_g: float
    size_mb_w8_padded: float
    latency_ms: float
    chip: str

    @property
    def latency(self) -> Estimate:
        """The time with its error."""
        return Estimate(self.latency_ms, self.chip)


def price(spec: StudentSpec, forward: Forward, chip: str) -> Price:
    """Parameters, MACs and bytes exactly as `compress.cost` counts them. Takes a fraction of a millisecond.

    Raises KeyError for an unknown chip.
    """
    weights = macs = size = 0
    time_s = 0.0
    for part, times in parts(spec, forward.height, forward.width, forward.tokens):
        part_weights, part_macs, part_size = _sums(part)
        weights += times * part_weights
        macs += times * part_macs
        size += times * part_size
        time_s += times * seconds(part, CHIPS[chip])
    return Price(weights / 1e6, macs / 1e9, size / 1e6, time_s * 1e3, chip)


@lru_cache(1 << 16)
def _sums(part: Part) -> tuple[int, int, int]:
    ops = part.ops
    return sum(op.weights for op in ops), sum(op.macs for op in ops), sum(op.weight_bytes for op in ops)
