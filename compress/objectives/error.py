"""The squared error under every objective: unreduced over the batch, in fp32 or wider whatever the networks run in."""

from __future__ import annotations

import torch
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """Half precisions become fp32; fp32 and fp64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def mean_square(first: Tensor, second: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over everything but the batch of weight * (first - second)^2, shape (b,).

    Raises ValueError on unequal shapes, so that a prediction over both panels can never be broadcast into a loss.
    """
    if first.shape != second.shape:
        raise ValueError(f"shapes {tuple(first.shape)} and {tuple(second.shape)} differ")
    square = (widened(first) - widened(second)) ** 2
    if weight is not None:
        square = square * weight
    return square.flatten(1).mean(dim=1)
