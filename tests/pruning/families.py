"""The published families: their config.json as far as it differs from diffusers' defaults, and narrow kin of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DreamLiteUNetModel, UNet2DConditionModel
from torch import Tensor

from compress.pruning.calibration import Noised, predict
from compress.pruning.evolution import rehouse
from compress.pruning.surgery import Draft
from students.presets import (
    dreamlite_full,
    koala_1b,
    koala_700m,
    sd15_full,
    sd21_full,
    sdxl_full,
    ssd1b_full,
    vega_full,
)
from students.spec import NONE, RESNET, StudentSpec
from tests.pruning.nets import batches, draft

_SD = {"_class_name": "UNet2DConditionModel", "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2}
_SDXL = {
    "_class_name": "UNet2DConditionModel",
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}
_SSD = _SDXL | {
    "mid_block_type": "UNetMidBlock2D",
    "transformer_layers_per_block": [0, [2, 2], [4, 4]],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 0],
}
_VEGA = {
    "transformer_layers_per_block": [0, [1, 1], [2, 2]],
    "reverse_transformer_layers_per_block": [[2, 2, 2], [1, 1, 1], 0],
}
# name: (config, the preset that it should be read as, parameters of that, the published size in M)
PUBLISHED: dict[str, tuple[dict[str, Any], StudentSpec, int, float]] = {
    "SD 1.5": (
        _SD | {"attention_head_dim": 8, "cross_attention_dim": 768, "sample_size": 64},
        sd15_full(),
        859_520_964,
        859.5,
    ),
    "SD 2.1": (
        _SD
        | {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "sample_size": 96}
        | {"use_linear_projection": True, "upcast_attention": True, "dual_cross_attention": False},
        sd21_full(),
        865_910_724,
        865.9,
    ),
    "SDXL": (_SDXL, sdxl_full(), 2_567_463_684, 2567.5),
    "SSD-1B": (_SSD, ssd1b_full(), 1_331_334_404, 1300),
    "Vega": (_SSD | _VEGA, vega_full(), 745_225_604, 740),
    "KOALA-700M": (
        _SDXL | {"layers_per_block": 1, "mid_block_type": None, "transformer_layers_per_block": [0, 2, 5]},
        koala_700m(),
        782_822_724,
        782,
    ),
    "KOALA-1B": (
        _SDXL | {"layers_per_block": 1, "transformer_layers_per_block": [0, 2, 6]},
        koala_1b(),
        1_161_184_324,
        1161,
    ),
}

_SMALL = {"cross_dim": 32, "sample_size": 8}
_SMALL_XL = {**_SMALL, "widths": (64, 128, 192), "heads": (1, 2, 3), "pooled_dim": 32, "size_dim": 32}
_ONE = (1, 1, 1, 1)
# The same topologies, narrow: each runs in milliseconds.
NARROW: dict[str, StudentSpec] = {
    "SD 1.5": replace(sd15_full(), widths=(64, 128, 192, 192), layers_per_block=_ONE, heads=(2, 2, 2, 2), **_SMALL),
    "SD 2.1": replace(sd21_full(), widths=(64, 128, 192, 192), layers_per_block=_ONE, heads=(1, 2, 3, 3), **_SMALL),
    "SDXL": replace(sdxl_full(), layers_per_block=(1, 1, 1), transformer_layers=(1, 1, 2), **_SMALL_XL),
    "SSD-1B": replace(
        ssd1b_full(),
        transformer_layers=(0, 2, 3),
        down_depths=((), (1, 1), (2, 2)),
        up_depths=((), (2, 1, 1), (2, 2, 3)),
        **_SMALL_XL,
    ),
    "KOALA": replace(koala_700m(), transformer_layers=(0, 1, 2), **_SMALL_XL),
    "DreamLite": replace(
        dreamlite_full(),
        widths=(64, 128, 192),
        heads=(1, 2, 3),
        layers_per_block=(1, 1, 1),
        transformer_layers=(1, 1, 2),
        cross_dim=32,
        text_dim=32,
        size_dim=32,
        sample_size=8,
    ),
}


@cache
def stock(spec: StudentSpec) -> UNet2DConditionModel:
    """A teacher as it would be downloaded: the published class, with weights that are nowhere near zero. It is shared:
    do not change it."""
    plain = replace(spec, plain=True)
    return draft(spec if plain.unexpressed() else plain).unet  # type: ignore[return-value]


@cache
def housed(spec: StudentSpec) -> Draft:
    """The stock teacher as operators take it; shared as well."""
    return rehouse(stock(spec), spec.pooled_dim)


def some_slow(names: Iterable[str], fast: tuple[str, ...]) -> list[Any]:
    """Parameters of a test, of which only some are in the fast tier."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


def samples(spec: StudentSpec, seed: int = 0, size: int = 2) -> list[Noised]:
    """One batch that a network of the family takes."""
    return batches(1, size, seed, spec)


@torch.no_grad()
def answers(unet: torch.nn.Module, spec: StudentSpec) -> Tensor:
    """A network's output for a held-out batch."""
    return predict(unet, samples(spec, seed=7)[0])


def reloaded(unet: Any, folder: Path) -> UNet2DConditionModel:
    """What stock diffusers makes of the network's folder; every tensor has to be there and fit.

    In memory of its own: some processors round 1e-6 otherwise where a file's tensors do not start at multiples of 64
    bytes, which is as they are mapped.
    """
    unet.save_pretrained(folder)
    kind = DreamLiteUNetModel if isinstance(unet, DreamLiteUNetModel) else UNet2DConditionModel
    again, info = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for parameter in again.parameters():
        parameter.data = parameter.data.clone()
    return again.eval().requires_grad_(False)  # frozen as drafts are: PyTorch has another attention kernel for training


def narrower(spec: StudentSpec, choose: Any) -> StudentSpec:
    """The spec with widths that `choose` picks from the lattice; what is one stream stays one."""
    widths: list[int] = []
    for stage, width in enumerate(spec.widths):
        joined = stage and width == spec.widths[stage - 1]
        widths.append(widths[-1] if joined else choose(range(64, width + 1, 64)))
    heads = spec.heads if spec.heads_fixed else tuple(width // 64 for width in widths)
    return replace(spec, widths=tuple(widths), heads=heads)


def shallower(spec: StudentSpec) -> StudentSpec:
    """Half the transformer blocks of every layer, and no middle block of a single residual block."""

    def halve(depths: Any) -> Any:
        return depths and tuple(tuple((depth + 1) // 2 for depth in layers) for layers in depths)

    return replace(
        spec,
        transformer_layers=tuple((depth + 1) // 2 for depth in spec.transformer_layers),
        down_depths=halve(spec.down_depths),
        up_depths=halve(spec.up_depths),
        middle=NONE if spec.middle == RESNET else spec.middle,
    )
