"""The rewrites that turn the exported U-Net into what the HTP computes in 16 bits, each exact in float.

A pass takes a graph, rewrites every occurrence of one pattern in place, and returns how many it rewrote.
The order matters only as written: aten patterns, then the step to modules, then patterns of modules.
"""

from __future__ import annotations

from collections.abc import Callable

from diffusers import UNet2DConditionModel
from torch import fx

from compress.quantization.graph import export_unet
from compress.quantization.host import IoSpec
from compress.quantization.lowering import lower
from compress.quantization.passes.attention import fold_attention
from compress.quantization.passes.geglu import split_geglu
from compress.quantization.passes.group_norm import expand_group_norm, fold_norm_affine
from compress.quantization.passes.noops import drop_noops
from compress.quantization.passes.reshapes import merge_reshapes
from compress.quantization.passes.rms_norm import fuse_rms_norm
from compress.quantization.passes.silu import expand_silu, share_silu
from compress.quantization.passes.text_bias import take_text_bias
from compress.quantization.passes.token_maps import keep_token_maps

Pass = Callable[[fx.GraphModule], int]

ATEN_PASSES: tuple[Pass, ...] = (drop_noops, fuse_rms_norm, take_text_bias)
MODULE_PASSES: tuple[Pass, ...] = (
    split_geglu,
    fold_attention,
    fold_norm_affine,
    keep_token_maps,
    expand_group_norm,
    share_silu,
    expand_silu,
    merge_reshapes,
)


def htp_graph(unet: UNet2DConditionModel, spec: IoSpec) -> fx.GraphModule:
    """The U-Net as a graph of modules that the HTP has a 16-bit form for; equal to it in float up to rounding.

    Takes (sample, time_sinusoid, size_sinusoid, tokens, and text_bias if the spec has it) at any batch size and returns
    the velocity of the pair.
    Weights that no pass changes are shared with `unet`. Raises UserError for a network it cannot express.
    """
    traced = export_unet(unet, spec)
    for rewrite in ATEN_PASSES:
        rewrite(traced)
    lowered = lower(traced)
    for rewrite in MODULE_PASSES:
        rewrite(lowered)
    return lowered
