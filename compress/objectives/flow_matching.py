"""Flow matching on the target panel, with DreamLite's extra weight on the edited region.

Shape suffixes: b batch, c channels, h and w rows and columns; masks have one channel (b1hw).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.objectives.error import mean_square


def velocity_target(x0_bchw: Tensor, noise_bchw: Tensor) -> Tensor:
    """eps - x0: the derivative of x_sigma by sigma; Lipman et al., arXiv 2210.02747 eq. 23 with sigma_min = 0."""
    return noise_bchw - x0_bchw


def velocity_loss(prediction_bchw: Tensor, target_bchw: Tensor, weight_b1hw: Tensor | None = None) -> Tensor:
    """Mean squared error per sample, shape (b,); each position times its weight when weights are given.

    Both tensors are the target panel alone; unequal shapes raise ValueError.
    """
    return mean_square(prediction_bchw, target_bchw, weight_b1hw)


def foreground_weight(mask_b1hw: Tensor) -> Tensor:
    """log2(x) + 1 inside the mask and 1 outside, x = whole area / edited area; shape of the mask.

    UniWorld-V1 (arXiv 2506.03147), adopted by DreamLite. The mask is boolean or 0/1. A small edit weighs more, an edit
    of the whole picture weighs 1, and an empty mask (generation) changes nothing.
    """
    inside_b1hw = mask_b1hw.float()
    area_b111 = inside_b1hw.mean(dim=(1, 2, 3), keepdim=True)
    bonus_b111 = torch.where(area_b111 > 0, -torch.log2(area_b111.clamp(min=1e-12)), torch.zeros_like(area_b111))
    return 1 + bonus_b111 * inside_b1hw


def latent_mask(mask_b1hw: Tensor, factor: int) -> Tensor:
    """The pixel mask on the latent grid: a cell is edited when any of its factor x factor pixels is."""
    return F.max_pool2d(mask_b1hw.float(), factor)
