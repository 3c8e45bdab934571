"""Noise levels: the list a sampler walks, their signal-to-noise ratio, resolution shift, and training draws.

Flow convention: x_sigma = (1 - sigma) * x0 + sigma * eps with sigma in (0, 1], 1 is pure noise.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor

Level = TypeVar("Level", float, Tensor)


def shift_sigma(sigma: Level, shift: float) -> Level:
    """Moves levels towards noise for shift > 1; 0 and 1 stay. SD3 (arXiv 2403.03206) eq. 23, shift = sqrt(m / n)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def unshift_sigma(sigma: Level, shift: float) -> Level:
    """The inverse of `shift_sigma`."""
    return shift_sigma(sigma, 1 / shift)


def resolution_shift(
    tokens: int, base_tokens: int = 256, max_tokens: int = 4096, base_mu: float = 0.5, max_mu: float = 1.15
) -> float:
    """The shift factor of FLUX and DreamLite: exp(mu), mu linear in `tokens` = latent height * width / 4 of a panel."""
    slope = (max_mu - base_mu) / (max_tokens - base_tokens)
    return math.exp(base_mu + slope * (tokens - base_tokens))


def sigmas(steps: int, shift: float = 1.0) -> list[float]:
    """`steps` levels from 1 down to shift(1 / steps), then 0: the list that `sampler.sample` walks."""
    if steps < 1:
        raise ValueError(f"sampling takes at least 1 step, not {steps}")
    return [shift_sigma(1 - step / steps, shift) for step in range(steps)] + [0.0]


def snr(sigma: Level) -> Level:
    """Signal-to-noise ratio ((1 - sigma) / sigma) ** 2, in (0, inf) for sigma in (0, 1)."""
    return ((1 - sigma) / sigma) ** 2


def sigma_of_snr(ratio: Level) -> Level:
    """The inverse of `snr`."""
    return 1 / (1 + ratio**0.5)


def draw_uniform(count: int, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """`count` levels uniform in (low, high], drawn on the generator's device."""
    unit_b = 1 - torch.rand(count, generator=generator, device=generator.device)  # (0, 1]: sigma = 0 has no velocity
    return low + (high - low) * unit_b


def draw_logit_normal(count: int, generator: torch.Generator, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """`count` levels sigmoid(mean + std * z), z normal; SD3 (arXiv 2403.03206) eq. 19. A higher mean is more noise."""
    return torch.sigmoid(mean + std * torch.randn(count, generator=generator, device=generator.device))


def logit_normal_density(sigma_b: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """The density of `draw_logit_normal` at sigma in (0, 1); zero at both ends."""
    inner = (sigma_b > 0) & (sigma_b < 1)
    safe_b = torch.where(inner, sigma_b, torch.full_like(sigma_b, 0.5))
    z_b = (torch.logit(safe_b) - mean) / std
    density_b = torch.exp(-0.5 * z_b**2) / (std * math.sqrt(2 * math.pi) * safe_b * (1 - safe_b))
    return torch.where(inner, density_b, torch.zeros_like(density_b))
