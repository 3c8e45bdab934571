"""Non-saturating adversarial losses on logits, as DMD2's diffusion GAN uses them. Shape suffix b: one per sample."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def generator_loss(fake_logit_b: Tensor) -> Tensor:
    """softplus(-D(fake)): small when the critic believes the fake."""
    return F.softplus(-fake_logit_b)


def critic_loss(real_logit_b: Tensor, fake_logit_b: Tensor) -> Tensor:
    """softplus(-D(real)) + softplus(D(fake)); 2 log 2 for a critic that knows nothing."""
    return F.softplus(-real_logit_b) + F.softplus(fake_logit_b)


def approximate_r1(real_logit_b: Tensor, perturbed_logit_b: Tensor, noise_std: float) -> Tensor:
    """((D(x) - D(x + noise_std * z)) / noise_std)^2: its mean over z is |grad D|^2 to first order (arXiv 2501.08316).

    R1 without second derivatives, which attention kernels may lack.
    """
    return ((real_logit_b - perturbed_logit_b) / noise_std) ** 2
