"""Knowledge distillation from a teacher's outputs and features, and SnapGen's timestep-aware scaling.

Shape suffix b: one loss per sample. Teacher tensors carry no gradient; callers compute them without one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from compress.objectives.error import mean_square


def output_loss(student_bchw: Tensor, teacher_bchw: Tensor) -> Tensor:
    """Mean squared error between two velocities of the same state, shape (b,)."""
    return mean_square(student_bchw, teacher_bchw)


def feature_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], relative: bool = True) -> Tensor:
    """The mean over layers of the squared error, shape (b,); `student` is already projected to the teacher's widths.

    With `relative` each layer is divided by the teacher feature's mean square, so that a few large layers do not
    decide alone (LAPTOP-Diff, arXiv 2404.11098); otherwise it is BK-SDM's plain sum of errors over the layer count.
    """
    if len(student) != len(teacher) or not student:
        raise ValueError(f"{len(student)} student features against {len(teacher)} of the teacher")
    losses = []
    for ours, theirs in zip(student, teacher, strict=True):
        loss_b = output_loss(ours, theirs)
        if relative:
            loss_b = loss_b / mean_square(theirs, torch.zeros_like(theirs)).clamp(min=1e-8)
        losses.append(loss_b)
    return torch.stack(losses).mean(dim=0)


def logit_normal_share(sigma_b: Tensor) -> Tensor:
    """The logit-normal(0, 1) density over its maximum: a_t of SnapGen, 0 at both ends of the path, 1 in the middle.

    The density exp(-logit^2 / 2) / (sigma (1 - sigma) sqrt(2 pi)) is symmetric; its maximum at 1/2 is 4 / sqrt(2 pi).
    """
    inner_b = (sigma_b > 0) & (sigma_b < 1)
    safe_b = torch.where(inner_b, sigma_b, torch.full_like(sigma_b, 0.5))
    density_b = torch.exp(-0.5 * torch.logit(safe_b) ** 2) / (math.sqrt(2 * math.pi) * safe_b * (1 - safe_b))
    return torch.where(inner_b, density_b * math.sqrt(2 * math.pi) / 4, torch.zeros_like(density_b))


def timestep_scaled(task_b: Tensor, kd_b: Tensor, sigma_b: Tensor, max_ratio: float = 10.0) -> Tensor:
    """S(task, kd) = a_t * task + (1 - a_t) * (|task| / |kd|) * kd, shape (b,); SnapGen (arXiv 2412.09619) section 3.3.

    Data leads in the middle of the path, the teacher at both ends. The ratio equalises the magnitudes and carries no
    gradient; it is capped because the gradient of a squared error that is divided by itself grows without bound as the
    student meets the teacher.
    """
    share_b = logit_normal_share(sigma_b)
    ratio_b = (task_b.detach().abs() / kd_b.detach().abs().clamp(min=1e-12)).clamp(max=max_ratio)
    return share_b * task_b + (1 - share_b) * ratio_b * kd_b
