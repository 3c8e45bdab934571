"""Tiny members of the family and batches for them; everything runs in milliseconds."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from compress.pruning.calibration import Noised, noised, predict
from compress.pruning.surgery import Bench, Draft
from students.spec import CROSS, NONE, SELF_CROSS, StudentSpec
from teachers.base import Condition

TEACHER = StudentSpec(
    widths=(64, 192),
    layers_per_block=(1, 1),
    transformer_layers=(1, 2),
    heads=(1, 3),
    down_attention=(NONE, SELF_CROSS),
    up_attention=(NONE, SELF_CROSS),
    cross_dim=64,
    pooled_dim=32,
    size_dim=32,
    size_values=2,
    in_channels=4,
    out_channels=4,
    sample_size=8,
)
STUDENT = replace(
    TEACHER,
    widths=(64, 128),
    heads=(1, 2),
    transformer_layers=(1, 1),
    down_attention=(CROSS, SELF_CROSS),
    text_dim=64,
    pooled_dim=None,
    kv_heads=1,
    ff_mult=3,
    qk_norm=True,
    separable=True,
)


def draft(spec: StudentSpec = TEACHER, seed: int = 0) -> Draft:
    """A network with random weights that are not near zero anywhere: biases and norms are moved as well."""
    torch.manual_seed(seed)
    unet = spec.build().requires_grad_(False)
    for name, parameter in unet.named_parameters():
        if parameter.dim() == 1:
            parameter.add_(0.2 * torch.randn_like(parameter))
        elif "attn" in name:
            parameter.mul_(2)
    return Draft(spec, unet)


def batches(count: int = 2, size: int = 4, seed: int = 0, spec: StudentSpec = TEACHER) -> list[Noised]:
    """Smooth random latents with random text."""
    generator = torch.Generator().manual_seed(seed)

    def one() -> tuple[Tensor, Condition]:
        coarse = torch.randn(size, spec.in_channels, 2, 2, generator=generator)
        x0 = nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear")
        tokens = nn.functional.layer_norm(
            torch.randn(size, 6, spec.text_dim or spec.cross_dim, generator=generator), (spec.cross_dim,)
        )
        pooled = torch.randn(size, spec.pooled_dim or 32, generator=generator)
        return x0, Condition(tokens, pooled, torch.full((size, 2), 64.0))

    return noised((one() for _ in range(count)), seed)


def bench(criterion: str = "magnitude", kv_merge: str = "svd", seed: int = 0) -> Bench:
    return Bench(batches(seed=seed), criterion, torch.Generator().manual_seed(seed), kv_merge)


def outputs(unet: nn.Module, seed: int = 5) -> Tensor:
    """The network's answer to one held-out batch."""
    with torch.no_grad():
        return predict(unet, batches(1, seed=seed)[0])
