"""The two published ends of the family, at full size."""

from __future__ import annotations

from students.spec import CROSS, NONE, SELF_CROSS, StudentSpec


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
