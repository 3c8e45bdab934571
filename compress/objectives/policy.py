"""Policy objectives for a flow model: Flow-GRPO's stochastic step and clipped ratio, and DiffusionNFT.

Shape suffixes: b samples, g groups of samples that share a prompt. Sampling runs from sigma to sigma_next < sigma.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compress.objectives.error import mean_square


def group_advantage(reward_b: Tensor, group_size: int, clip: float = 5.0) -> Tensor:
    """(r - mean) / std within each run of `group_size` neighbours, clipped, shape (b,); 0 where all are equal."""
    if len(reward_b) % group_size:
        raise ValueError(f"{len(reward_b)} rewards do not fall into groups of {group_size}")
    reward_gn = reward_b.reshape(-1, group_size)
    centred_gn = reward_gn - reward_gn.mean(dim=1, keepdim=True)
    std_g1 = centred_gn.pow(2).mean(dim=1, keepdim=True).sqrt()
    advantage_gn = torch.where(std_g1 > 1e-6, centred_gn / std_g1.clamp(min=1e-6), torch.zeros_like(centred_gn))
    return advantage_gn.clamp(-clip, clip).flatten()


def sde_step(
    x_bchw: Tensor, velocity_bchw: Tensor, sigma: float, sigma_next: float, noise_scale: float = 0.7
) -> tuple[Tensor, float]:
    """(mean, std) of Flow-GRPO's stochastic step (arXiv 2505.05470), which keeps the flow's marginals.

    s = noise_scale * sqrt(sigma / (1 - sigma)); at sigma = 1 the next level stands in, where s would be infinite.
    The step's drift is v + s^2 / (2 sigma) * (x + (1 - sigma) v), its std s * sqrt(sigma - sigma_next).
    """
    level = sigma if sigma < 1 else sigma_next
    rate = noise_scale * math.sqrt(level / (1 - level))
    dt = sigma_next - sigma
    drift_bchw = velocity_bchw + rate**2 / (2 * sigma) * (x_bchw + (1 - sigma) * velocity_bchw)
    return x_bchw + drift_bchw * dt, rate * math.sqrt(-dt)


def log_prob(x_next_bchw: Tensor, mean_bchw: Tensor, std: float) -> Tensor:
    """log N(x_next; mean, std^2) averaged over dimensions, shape (b,), in fp32 as the ratio of two has to be."""
    square_b = mean_square(x_next_bchw.detach(), mean_bchw) / std**2
    return -0.5 * square_b - math.log(std) - 0.5 * math.log(2 * math.pi)


def clipped_loss(log_prob_b: Tensor, old_log_prob_b: Tensor, advantage_b: Tensor, clip: float) -> Tensor:
    """-min(rho A, clip(rho) A), rho = exp(log_prob - old); PPO (arXiv 1707.06347) eq. 7, shape (b,)."""
    ratio_b = torch.exp(log_prob_b - old_log_prob_b.detach())
    return -torch.minimum(ratio_b * advantage_b, ratio_b.clamp(1 - clip, 1 + clip) * advantage_b)


def gaussian_kl(mean_bchw: Tensor, reference_bchw: Tensor, std: float) -> Tensor:
    """KL of two steps of equal std, averaged over dimensions, shape (b,): mean (mu - mu_ref)^2 / (2 std^2)."""
    return mean_square(mean_bchw, reference_bchw) / (2 * std**2)


def nft_loss(
    velocity_bchw: Tensor, old_bchw: Tensor, target_bchw: Tensor, preference_b: Tensor, beta: float = 1.0
) -> Tensor:
    """DiffusionNFT (arXiv 2509.16117) in velocity space, shape (b,); needs no likelihood and no special sampler.

    `preference` r in [0, 1] says how good the sample is (advantage / 5, clipped, halved, plus 1/2). Good samples pull
    v+ = (1 - beta) v_old + beta v to the flow-matching target, bad ones v- = (1 + beta) v_old - beta v. The gradient at
    v = v_old is 2 beta (2 r - 1) (v_old - target) / size: none at r = 1/2, reversed below.
    """
    old_bchw = old_bchw.detach()
    positive_b = mean_square(old_bchw + beta * (velocity_bchw - old_bchw), target_bchw)
    negative_b = mean_square(old_bchw - beta * (velocity_bchw - old_bchw), target_bchw)
    return preference_b * positive_b + (1 - preference_b) * negative_b
