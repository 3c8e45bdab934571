"""How far two forms of one network are apart: SQNR over the calls of a trajectory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.quantization.host import HostDenoiser, NetworkInputs


def sqnr_db(reference: Tensor, other: Tensor) -> float:
    """Signal to quantization noise in dB: 10 log10(sum reference^2 / sum (reference - other)^2), inf where equal."""
    signal = reference.double().pow(2).sum().item()
    noise = (reference.double() - other.double()).pow(2).sum().item()
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


@dataclass(frozen=True)
class TrajectoryParity:
    """`overall_db` over all calls together, `by_step_db` over the calls of each sampling step."""

    overall_db: float
    by_step_db: tuple[float, ...]


@torch.no_grad()
def answers(denoisers: Mapping[str, HostDenoiser], inputs: NetworkInputs) -> dict[str, Tensor]:
    """Each network's velocity of the target panel on recorded inputs: what the sampler would have been given.

    Of a pair the right half of the output is cropped: it is not trained and nobody reads it.
    """
    columns = inputs.sample_bchw.shape[3]
    return {
        name: denoiser.forward(inputs)[..., : columns // 2 if denoiser.spec.pair else columns]
        for name, denoiser in denoisers.items()
    }


def trajectory_parity(reference: Tensor, other: Tensor, step_n: Tensor) -> TrajectoryParity:
    """SQNR of `other` against `reference`, both (n, c, h, w), over calls of the steps `step_n` (n,)."""
    steps = [step_n == step for step in range(int(step_n.max()) + 1)]
    by_step = tuple(sqnr_db(reference[rows], other[rows]) for rows in steps)
    return TrajectoryParity(sqnr_db(reference, other), by_step)
