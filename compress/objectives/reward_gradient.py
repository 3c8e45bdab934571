"""ReFL: differentiate a reward through the sampler's end. Which samples get a gradient is an explicit choice."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Hinge = Literal["below", "above", "all"]


def refl_loss(reward_b: Tensor, threshold: float, hinge: Hinge) -> Tensor:
    """The loss to minimise so that rewards rise, shape (b,).

    `below` (ImageReward, arXiv 2304.05977): max(0, threshold - r): samples under the threshold are pulled up and
    good ones are left alone, which is also the guard against over-optimising.
    `above` (DreamLite as printed): -max(0, r - threshold): only samples over it are pushed further up.
    `all`: -r.
    """
    if hinge == "below":
        return (threshold - reward_b).clamp(min=0)
    if hinge == "above":
        return -(reward_b - threshold).clamp(min=0)
    if hinge == "all":
        return -reward_b
    raise ValueError(f"unknown hinge {hinge!r}: choose below, above or all")


def equalise(x_bchw: Tensor) -> Tensor:
    """The same samples, shape (b, c, h, w); gradients that come back through them leave with length 1 in every sample.

    A learned reward is steep in some pictures and flat in most, and every step of a sampler multiplies that. Without
    this a batch learns from its few steepest rows, and clipping the whole gradient keeps their direction
    (reports/LOG.md). Samples without gradient keep none.
    """
    if x_bchw.requires_grad:
        x_bchw.register_hook(_unit)
    return x_bchw


def _unit(gradient_bchw: Tensor) -> Tensor:
    length_b = gradient_bchw.flatten(1).norm(dim=1)
    scale_b = torch.where(length_b > 0, 1 / length_b.clamp(min=1e-20), torch.zeros_like(length_b))
    return gradient_bchw * scale_b.view(-1, *[1] * (gradient_bchw.dim() - 1))
