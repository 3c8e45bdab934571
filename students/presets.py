"""Published networks as specs, at full size, and smaller ones of DreamLite's kind on the lattice.

SSD-1B, Segmind-Vega and KOALA are *shaped* like the published networks: depths and middle blocks are theirs as others'
loaders list them, and the parameters they give are compared with the published sizes in the tests.
"""

from __future__ import annotations

from dataclasses import replace

from students.spec import CROSS, NONE, RESNET, SELF_CROSS, StudentSpec, with_heads


def dreamlite_full() -> StudentSpec:
    """The published DreamLite U-Net (arXiv 2603.28713): 389,968,388 parameters."""
    return StudentSpec(
        widths=(256, 512, 896),
        layers_per_block=(2, 2, 2),
        transformer_layers=(1, 2, 4),
        heads=(4, 8, 14),
        down_attention=(CROSS, CROSS, SELF_CROSS),
        up_attention=(NONE, CROSS, SELF_CROSS),
        cross_dim=2304,
        text_dim=2048,
        size_dim=256,
        size_values=2,
        kv_heads=1,
        ff_mult=3,
        qk_norm=True,
        separable=True,
        sample_size=128,
    )


def sdxl_full() -> StudentSpec:
    """SDXL's U-Net (arXiv 2307.01952) written as a member of the family: 2,567,463,684 parameters."""
    return StudentSpec(
        widths=(320, 640, 1280),
        layers_per_block=(2, 2, 2),
        transformer_layers=(1, 2, 10),
        heads=(5, 10, 20),
        down_attention=(NONE, SELF_CROSS, SELF_CROSS),
        up_attention=(NONE, SELF_CROSS, SELF_CROSS),
        cross_dim=2048,
        pooled_dim=1280,
        size_dim=256,
        size_values=6,
        sample_size=128,
    )


def sd15_full() -> StudentSpec:
    """Stable Diffusion 1.x's U-Net (arXiv 2112.10752): four stages, 8 heads of any width, convolutions around the
    transformers, no size embedding; 859,520,964 parameters."""
    return StudentSpec(
        widths=(320, 640, 1280, 1280),
        layers_per_block=(2, 2, 2, 2),
        transformer_layers=(1, 1, 1, 1),
        heads=(8, 8, 8, 8),
        heads_fixed=True,
        down_attention=(SELF_CROSS, SELF_CROSS, SELF_CROSS, NONE),
        up_attention=(SELF_CROSS, SELF_CROSS, SELF_CROSS, NONE),
        cross_dim=768,
        linear_projection=False,
        sample_size=64,
    )


def sd21_full() -> StudentSpec:
    """Stable Diffusion 2.1's U-Net: as 1.x with 64-wide heads and linear projections; 865,910,724 parameters."""
    heads = (5, 10, 20, 20)
    return replace(sd15_full(), heads=heads, heads_fixed=False, cross_dim=1024, linear_projection=True, sample_size=96)


def ssd1b_full() -> StudentSpec:
    """Shaped like SSD-1B (arXiv 2401.02677): SDXL with depths that differ from layer to layer and a middle block of one
    residual block."""
    return replace(
        sdxl_full(),
        transformer_layers=(0, 2, 10),
        down_depths=((), (2, 2), (4, 4)),
        up_depths=((), (2, 1, 1), (4, 4, 10)),
        middle=RESNET,
        plain=True,
    )


def vega_full() -> StudentSpec:
    """Shaped like Segmind-Vega (arXiv 2401.02677): SDXL with depths (1, 2) and a middle block of one residual block."""
    return replace(sdxl_full(), transformer_layers=(0, 1, 2), middle=RESNET, plain=True)


def koala_700m() -> StudentSpec:
    """Shaped like KOALA-700M (arXiv 2312.04005): SDXL with one layer a stage, depths (2, 5) and no middle block."""
    return replace(sdxl_full(), layers_per_block=(1, 1, 1), transformer_layers=(0, 2, 5), middle=NONE)


def koala_1b() -> StudentSpec:
    """Shaped like KOALA-1B (arXiv 2312.04005): SDXL with one layer a stage and depths (2, 6)."""
    return replace(sdxl_full(), layers_per_block=(1, 1, 1), transformer_layers=(0, 2, 6))


def dreamlite_300m() -> StudentSpec:
    """DreamLite pruned further, on the lattice: 297,462,916 parameters."""
    return _narrower_dreamlite((256, 448, 768), (1, 2, 4))


def dreamlite_200m() -> StudentSpec:
    """DreamLite pruned further, on the lattice: 202,531,332 parameters."""
    return _narrower_dreamlite((192, 320, 640), (1, 2, 4))


def dreamlite_100m() -> StudentSpec:
    """DreamLite pruned further, on the lattice: 92,228,996 parameters."""
    return _narrower_dreamlite((128, 256, 448), (1, 2, 3))


def _narrower_dreamlite(widths: tuple[int, ...], depths: tuple[int, ...]) -> StudentSpec:
    """The text's projection stays as wide as it was trained, 2,304: it does not shrink with the rest."""
    return with_heads(replace(dreamlite_full(), widths=widths, transformer_layers=depths))
