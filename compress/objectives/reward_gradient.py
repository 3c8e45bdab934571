"""ReFL: differentiate a reward through the sampler's end. Which samples get a gradient is an explicit choice."""

from __future__ import annotations

from typing import Literal

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
