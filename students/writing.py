"""A `StudentSpec` as the arguments of a stock diffusers class, and what that class's config.json cannot say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from students.spec import CROSS, NONE, RESNET, SELF_CROSS

if TYPE_CHECKING:
    from students.spec import StudentSpec

_DOWN = {NONE: "DreamLiteDownBlock2D", CROSS: "DreamLiteCrossAttnNoSelfAttnDownBlock2D"}
_DOWN[SELF_CROSS] = "DreamLiteCrossAttnDownBlock2D"
_PLAIN_DOWN = {NONE: "DownBlock2D", SELF_CROSS: "CrossAttnDownBlock2D"}
_PLAIN_MIDDLE = {SELF_CROSS: "UNetMidBlock2DCrossAttn", RESNET: "UNetMidBlock2D", NONE: None}


def config_of(spec: StudentSpec) -> dict[str, Any]:
    """The arguments of `UNet2DConditionModel` for a plain spec, of `DreamLiteUNetModel` for any other.

    Raises ValueError, with the reasons, for what the class cannot express.
    """
    if found := list(unexpressed(spec)):
        raise ValueError("; ".join(what for what, _ in found))
    return _common(spec) | (_plain(spec) if spec.plain else _dreamlite(spec))


def unexpressed(spec: StudentSpec) -> Iterator[tuple[str, str]]:
    """(what, remedy) for everything that no config.json of the spec's class says."""
    if not spec.plain:
        if spec.middle == RESNET:
            what = "DreamLiteUNetModel has no middle block of a single residual block"
            yield what, "Drop the middle block, or stay with UNet2DConditionModel."
        return
    stays = "UNet2DConditionModel's config.json cannot say"
    remedy = "Leave it as it is, or make a DreamLiteUNetModel."
    if spec.middle == RESNET:
        remedy = "Leave it as it is, or drop the middle block, which a DreamLiteUNetModel cannot have (step depth)."
    for holds, what in (
        (spec.separable, "separable convolutions"),
        (spec.kv_heads is not None, f"{spec.kv_heads} key/value heads"),
        (spec.qk_norm, "normed queries and keys"),
        (spec.ff_mult != 4, f"a feed-forward of {spec.ff_mult} times the width"),
        (spec.text_dim is not None, "a normed text projection"),
        (CROSS in (*spec.down_attention, *spec.up_attention), "transformers without self-attention"),
        (spec.size_values and not spec.pooled_dim, "a size embedding without pooled text"),
    ):
        if holds:
            yield f"{stays} {what}", remedy


def _common(spec: StudentSpec) -> dict[str, Any]:
    addition = "text_time" if spec.pooled_dim else ("time" if spec.size_values else None)
    return {
        "sample_size": spec.sample_size,
        "in_channels": spec.in_channels,
        "out_channels": spec.out_channels,
        "block_out_channels": spec.widths,
        "layers_per_block": _collapse(spec.layers_per_block),
        **_depths(spec),
        "attention_head_dim": spec.heads,  # diffusers' name; it means the number of heads
        "cross_attention_dim": spec.cross_dim,
        "use_linear_projection": spec.linear_projection,
        "addition_embed_type": addition,
        "addition_time_embed_dim": spec.size_dim or None,
        "projection_class_embeddings_input_dim": spec.added_dim if addition else None,
        "norm_num_groups": spec.norm_groups,
        "norm_eps": spec.norm_eps,
    }


def _dreamlite(spec: StudentSpec) -> dict[str, Any]:
    return {
        "down_block_types": tuple(_DOWN[kind] for kind in spec.down_attention),
        "up_block_types": tuple(_up(_DOWN[kind]) for kind in reversed(spec.up_attention)),
        "encoder_hid_dim": spec.text_dim,
        "encoder_hid_dim_type": None if spec.text_dim is None else "text_proj_rms",
        "qk_norm": "rms_norm" if spec.qk_norm else None,
        "use_sep_conv": spec.separable,
        "ff_mult": spec.ff_mult,
        "num_kv_heads": spec.kv_heads,
        **({} if spec.middle == SELF_CROSS else {"mid_block_type": None}),
    }


def _plain(spec: StudentSpec) -> dict[str, Any]:
    return {
        "down_block_types": tuple(_PLAIN_DOWN[kind] for kind in spec.down_attention),
        "up_block_types": tuple(_up(_PLAIN_DOWN[kind]) for kind in reversed(spec.up_attention)),
        "mid_block_type": _PLAIN_MIDDLE[spec.middle],
    }


def _up(down: str) -> str:
    return down.replace("Down", "Up")


def _depths(spec: StudentSpec) -> dict[str, Any]:
    """Depths that differ within a stage are listed by layer, for each way."""
    if spec.down_depths is None or spec.up_depths is None:
        return {"transformer_layers_per_block": spec.transformer_layers}
    down, up = (
        [_collapse(layers) if layers else spec.transformer_layers[stage] for stage, layers in enumerate(depths)]
        for depths in (spec.down_depths, spec.up_depths)
    )
    return {"transformer_layers_per_block": tuple(down), "reverse_transformer_layers_per_block": tuple(reversed(up))}


def _collapse(values: Sequence[int]) -> int | tuple[int, ...]:
    return values[0] if len(set(values)) == 1 else tuple(values)
