"""From noise to a latent along a list of noise levels: Euler on the flow, or the few-step consistency walk."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from compress.diffusion.guidance import Guidance, guided_velocity
from compress.diffusion.prediction import add_noise, x0_of_velocity
from teachers.base import Condition, VelocityModel


class Observer(Protocol):
    """Sees every network call of a sampling run: what went in (x, sigma) and the guided velocity that came out."""

    def __call__(self, step: int, sigma: float, x_bchw: Tensor, velocity_bchw: Tensor) -> None: ...


def check_levels(levels: Sequence[float]) -> None:
    """Raises ValueError unless the levels fall strictly from at most 1 to exactly 0."""
    falling = all(high > low for high, low in pairwise(levels))
    if len(levels) < 2 or not falling or levels[0] > 1 or levels[-1] != 0:
        raise ValueError(f"noise levels have to fall from at most 1 to 0, got {list(levels)}")


def noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of x's shape and dtype, drawn on the generator's device: a CPU generator gives the same
    noise on every machine."""
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)


def step_to(x: Tensor, velocity: Tensor, sigma: float, sigma_next: float, noise: Tensor | None = None) -> Tensor:
    """One step down. Without noise: Euler. With noise: predict x0, then noise it afresh to the next level, as the
    few-step student of DMD2 (arXiv 2405.14867, section 4.5) is trained and run."""
    if noise is None:
        return x + (sigma_next - sigma) * velocity
    sigma_b, next_b = x.new_full((len(x),), sigma), x.new_full((len(x),), sigma_next)
    return add_noise(x0_of_velocity(x, velocity, sigma_b), noise, next_b)


def sample(
    model: VelocityModel,
    noise_bchw: Tensor,
    condition: Condition,
    sigmas: Sequence[float],
    guidance: Guidance | None = None,
    stochastic: bool = False,
    generator: torch.Generator | None = None,
    callback: Observer | None = None,
) -> Tensor:
    """Walks `noise_bchw` (a state at level sigmas[0]) down `sigmas`, a falling list that ends in 0, to x0.

    Costs len(sigmas) - 1 forwards, each of all guidance branches at once. Gradients flow unless the caller turns them
    off. With `stochastic` the last step adds no noise, so the result is the model's own x0.
    """
    check_levels(sigmas)
    x = noise_bchw
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        velocity = guided_velocity(model, x, x.new_full((len(x),), sigma), condition, guidance)
        if callback is not None:
            callback(step, sigma, x, velocity)
        fresh = noise_like(x, generator) if stochastic and sigma_next > 0 else None
        x = step_to(x, velocity, sigma, sigma_next, fresh)
    return x
