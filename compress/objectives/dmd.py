"""Distribution matching distillation: the student's gradient and the fake score's loss.

DMD2 (arXiv 2405.14867) in the flow convention: x0 = x - sigma * v, score = -(x - (1 - sigma) * x0) / sigma^2, so the
score difference of two models is (1 - sigma) / sigma^2 times the difference of their x0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compress.objectives.error import mean_square
from compress.objectives.flow_matching import velocity_loss, velocity_target


def score_of_x0(x_bchw: Tensor, x0_bchw: Tensor, sigma_b: Tensor) -> Tensor:
    """grad log p_sigma(x) from a posterior mean, x's shape; sigma in (0, 1]."""
    sigma_b111 = sigma_b.reshape(-1, *[1] * (x_bchw.dim() - 1))
    return -(x_bchw - (1 - sigma_b111) * x0_bchw) / sigma_b111**2


def dmd_gradient(student_bchw: Tensor, real_bchw: Tensor, fake_bchw: Tensor, normalise: bool = True) -> Tensor:
    """(x0_fake - x0_real) / mean|x0_student - x0_real|, x's shape: DMD (arXiv 2311.18828) eq. 7 and 8.

    The direction in which the student's sample has to be *decreased*. `student` is the clean sample, `real` the guided
    teacher's and `fake` the unguided fake score's x0 at the same noised state. The mean is per sample, which evens out
    noise levels; a sample whose gradient is not finite gets none.
    """
    gradient = fake_bchw - real_bchw
    if normalise:
        distance_b = (student_bchw - real_bchw).abs().flatten(1).mean(dim=1)
        gradient = gradient / distance_b.reshape(-1, *[1] * (gradient.dim() - 1))
    return torch.nan_to_num(gradient.detach(), nan=0.0, posinf=0.0, neginf=0.0)


def dmd_loss(student_bchw: Tensor, gradient_bchw: Tensor) -> Tensor:
    """1/2 mean (x - sg(x - g))^2, shape (b,): its derivative by the student's sample is `gradient` / its size."""
    return 0.5 * mean_square(student_bchw, (student_bchw - gradient_bchw).detach())


def fake_score_loss(velocity_bchw: Tensor, sample_bchw: Tensor, noise_bchw: Tensor) -> Tensor:
    """Plain flow matching on the student's own (detached) samples, shape (b,): the fake score learns their law."""
    return velocity_loss(velocity_bchw, velocity_target(sample_bchw.detach(), noise_bchw))
