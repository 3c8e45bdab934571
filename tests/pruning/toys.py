"""A network whose scores can be worked out by hand, called as a U-Net is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from compress.pruning.calibration import Noised
from compress.pruning.groups import CHANNEL, Group, Member
from teachers.base import Condition


class TwoLayers(nn.Module):
    """velocity = second(first(x)) at every pixel; no nonlinearity, no bias."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.config = SimpleNamespace(addition_embed_type=None)
        self.first = nn.Conv2d(first.shape[1], first.shape[0], 1, bias=False)
        self.second = nn.Conv2d(second.shape[1], second.shape[0], 1, bias=False)
        self.requires_grad_(False)
        self.first.weight.copy_(first[..., None, None])
        self.second.weight.copy_(second[..., None, None])
        self.forwards = 0

    def forward(self, sample: Tensor, **_: Any) -> tuple[Tensor]:
        self.forwards += 1
        return (self.second(self.first(sample)),)


def hidden(count: int) -> Group:
    """The channels between the two layers."""
    index = torch.arange(count)[:, None]
    return Group("first", CHANNEL, count, (Member("first.weight", 0, index), Member("second.weight", 1, index)))


def question(x: Tensor, velocity: Tensor, sigma_b: list[float] | None = None) -> Noised:
    """Samples of one pixel: x and velocity are (b, c)."""
    sigma = torch.linspace(0.1, 1.0, len(x)) if sigma_b is None else torch.tensor(sigma_b)
    return Noised(x[..., None, None], sigma, velocity[..., None, None], Condition(torch.zeros(len(x), 1, 1)))


class Stack(nn.Module):
    """velocity = x through residual blocks, each of which adds a linear map of its input."""

    def __init__(self, weights: list[Tensor]) -> None:
        super().__init__()
        self.config = SimpleNamespace(addition_embed_type=None)
        self.blocks = nn.ModuleList(_Block(weight) for weight in weights)
        self.requires_grad_(False)

    def forward(self, sample: Tensor, **_: Any) -> tuple[Tensor]:
        x_bhwc = sample.permute(0, 2, 3, 1)
        for block in self.blocks:
            x_bhwc = block(x_bhwc)
        return (x_bhwc.permute(0, 3, 1, 2),)


class _Block(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.inner = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.inner.weight.data.copy_(weight)

    def forward(self, x_bhwc: Tensor) -> Tensor:
        return x_bhwc + self.inner(x_bhwc)
