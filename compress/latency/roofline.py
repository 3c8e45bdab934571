"""A Hexagon roofline: each operation takes as long as the slower of its arithmetic and its traffic to memory.

Williams et al., "Roofline" (CACM 52(4), 2009): time = max(work / peak rate, bytes / peak bandwidth), summed over
operations, since the HTP carries them out one after the other.
- Work is multiply-accumulates with channels padded to 32, in units of one 8-bit by one 16-bit operand: two 16-bit
  operands count twice, as they need two passes of an 8-bit multiplier. Weights narrower than 8 bits save no work.
- Bytes are what must cross to DRAM: weights once a forward, and the tensors around a group norm where they do not both
  fit the chip's own memory (VTCM), because its statistics need the whole tensor before the first value is written.
  Everything else is taken to be tiled within VTCM.
- What is left out (norms, activation functions, softmax, launching an operation) is small in the networks that the
  rates were fitted to; where it is not, in small networks above all, the estimate is too low.

Both rates of a chip were fitted to public W8A16 measurements (calibrate.py): left out in turn, the U-Nets of Stable
Diffusion 1.5 and 2.1 are met to 2.1 % on average and 3.4 % at worst. Networks of other kinds are missed by more, -40 %
to +39 %, and a student is of another kind: `ERROR` is the root mean square over all of them. Nothing here was run on
a phone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from compress.operations import Op, Part, parts
from students.spec import StudentSpec


@dataclass(frozen=True)
class Precision:
    """Bits of weights and of activations. Only W8A16 is calibrated."""

    weight_bits: int = 8
    activation_bits: int = 16


W8A16 = Precision()


@dataclass(frozen=True)
class Chip:
    """macs_t is the rate of 8 x 16-bit multiply-accumulates in 10^12 a second, memory_gb the traffic to DRAM in 10^9
    bytes a second, both as reached, not as advertised; vtcm_bytes the memory on the chip."""

    title: str
    soc: str
    macs_t: float
    memory_gb: float
    vtcm_bytes: int = 8 << 20


# `python -m compress.latency.calibrate` prints the rates and the error; a test holds them to that. The memory on the
# chips is that of ExecuTorch's table of Snapdragons (backends/qualcomm/serialization/qc_schema.py).
CHIPS = {
    "8gen2": Chip("Snapdragon 8 Gen 2", "sm8550", 5.215, 31.44),
    "8gen3": Chip("Snapdragon 8 Gen 3", "sm8650", 7.257, 43.66),
    "8elite": Chip("Snapdragon 8 Elite", "sm8750", 9.616, 55.88),
    "8elite_gen5": Chip("Snapdragon 8 Elite Gen 5", "sm8850", 13.236, 63.04),
}
ERROR = 0.22
SHORTEST_MS = 1.3  # of the measurements behind the rates


@dataclass(frozen=True)
class Estimate:
    """latency_ms of one forward, and how far such estimates were off: the root mean square of the relative errors on
    public measurements that had no part in the rates used for them."""

    latency_ms: float
    chip: str
    error_ratio: float = ERROR

    def __str__(self) -> str:
        title = CHIPS[self.chip].title
        known = "" if self.latency_ms >= SHORTEST_MS else "; shorter than any measurement behind it, so likely too low"
        return f"about {self.latency_ms:.3g} ms ± {self.error_ratio:.0%} on {title} (estimated, not measured{known})"


def estimate(
    spec: StudentSpec, height: int, width: int, tokens: int, chip: str, precision: Precision = W8A16
) -> Estimate:
    """Of one forward on a latent of height x width (a pair counts its full width) and `tokens` tokens of text.

    Raises KeyError for a chip that is not in CHIPS.
    """
    known = CHIPS[chip]
    total = sum(seconds(part, known, precision) * times for part, times in parts(spec, height, width, tokens))
    return Estimate(1e3 * total, chip)


def latency_of(ops: Iterable[Op], chip: Chip, precision: Precision = W8A16) -> float:
    """Milliseconds for these operations, one after the other."""
    return 1e3 * sum(_seconds(op, chip, precision) for op in ops)


@lru_cache(1 << 16)
def seconds(part: Part, chip: Chip, precision: Precision = W8A16) -> float:
    """Time of one part; remembered, because planners ask for the same part again and again."""
    return sum(_seconds(op, chip, precision) for op in part.ops)


def _seconds(op: Op, chip: Chip, precision: Precision) -> float:
    return max(_work(op, precision) / (chip.macs_t * 1e12), _traffic(op, chip, precision) / (chip.memory_gb * 1e9))


def _work(op: Op, precision: Precision) -> float:
    other = precision.activation_bits if op.dynamic else max(precision.weight_bits, 8)
    return op.macs_padded * precision.activation_bits * other / (16 * 8)


def _traffic(op: Op, chip: Chip, precision: Precision) -> float:
    weights = op.weight_bytes * precision.weight_bits / 8
    activations = op.elements * precision.activation_bits / 8
    return weights + (activations if op.kind == "group_norm" and activations > chip.vtcm_bytes else 0.0)
