"""A diffusers config.json, read as the fields of a `StudentSpec`; what no spec can say is refused by name.

Five published families fit: SD 1.x (convolutions around the transformers, 8 heads of any width), SD 2.x, SDXL, its
distilled kin SSD-1B, Segmind-Vega and KOALA (depths that differ from layer to layer, a middle block that is one
residual block or missing), and DreamLite. `upcast_attention` is not kept: diffusers' fused attention does not look at
it. Stages are numbered from the highest resolution down, so what a config lists going up is read in reverse.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from students.spec import CROSS, HEAD_WIDTH, NONE, RESNET, SELF_CROSS

_KINDS = {
    "DownBlock2D": NONE,
    "UpBlock2D": NONE,
    "CrossAttnDownBlock2D": SELF_CROSS,
    "CrossAttnUpBlock2D": SELF_CROSS,
    "CrossAttnDownRemoveSelfAttnBlock2D": CROSS,
    "CrossAttnUpRemoveSelfAttnBlock2D": CROSS,
    "CrossAttnUpRemoveSelfAttnBlock2DV1": CROSS,
    "DreamLiteDownBlock2D": NONE,
    "DreamLiteUpBlock2D": NONE,
    "DreamLiteCrossAttnDownBlock2D": SELF_CROSS,
    "DreamLiteCrossAttnUpBlock2D": SELF_CROSS,
    "DreamLiteCrossAttnNoSelfAttnDownBlock2D": CROSS,
    "DreamLiteCrossAttnNoSelfAttnUpBlock2D": CROSS,
}
_MIDDLES = {
    "UNetMidBlock2DCrossAttn": SELF_CROSS,
    "DreamLiteUNetMidBlock2DCrossAttn": SELF_CROSS,
    "UNetMidBlock2D": RESNET,
    None: NONE,
}
# What this family does not vary: a configuration that sets one of these otherwise is refused, not misread.
_FIXED = {
    "act_fn": "silu",
    "attention_type": "default",
    "center_input_sample": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
    "num_class_embeds": None,
    "num_mid_layers": 1,
    "only_cross_attention": False,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
}
Depths = tuple[tuple[int, ...], ...]  # of a stage's layers, for each stage


def read(config: Mapping[str, Any], pooled_dim: int | None = None) -> dict[str, Any]:
    """The arguments of `StudentSpec` for the configuration of a `UNet2DConditionModel` or `DreamLiteUNetModel`.

    Raises ValueError, naming the fields, where the network is not of this family.
    """
    full = _with_defaults(config)
    if odd := _outside_the_family(full):
        raise ValueError(f"not a U-Net of this family: {', '.join(odd)}")
    widths = tuple(full["block_out_channels"])
    size_values, pooled_dim = _size_embedding(full, pooled_dim)
    heads = _per_stage(full["attention_head_dim"], len(widths))  # diffusers' name; it means the number of heads
    middle = _MIDDLES[full["mid_block_type"]]
    cross_dim = full["cross_attention_dim"]
    read = {
        "widths": widths,
        "layers_per_block": _per_stage(full["layers_per_block"], len(widths)),
        "heads": heads,
        "heads_fixed": any(width != HEAD_WIDTH * count for width, count in zip(widths, heads, strict=True)),
        "down_attention": tuple(_KINDS[name] for name in full["down_block_types"]),
        "up_attention": tuple(_KINDS[name] for name in reversed(full["up_block_types"])),
        "middle": middle,
        "plain": middle == RESNET,  # DreamLite's class has no such block
        "cross_dim": cross_dim if isinstance(cross_dim, int) else cross_dim[0],
        "text_dim": full.get("encoder_hid_dim") if full.get("encoder_hid_dim_type") else None,
        "pooled_dim": pooled_dim,
        "size_dim": full.get("addition_time_embed_dim") or 0,
        "size_values": size_values,
        "kv_heads": full.get("num_kv_heads"),
        "ff_mult": full.get("ff_mult", 4),
        "qk_norm": full.get("qk_norm") == "rms_norm",
        "separable": bool(full.get("use_sep_conv", False)),
        "linear_projection": bool(full["use_linear_projection"]),
        "in_channels": full["in_channels"],
        "out_channels": full["out_channels"],
        "sample_size": full.get("sample_size"),
        "norm_groups": full["norm_num_groups"],
        "norm_eps": full["norm_eps"],
    }
    return read | _depths(full, read)


def _depths(full: Mapping[str, Any], read: Mapping[str, Any]) -> dict[str, Any]:
    """transformer_layers, and where they differ within a stage or between its two sides, down_depths and up_depths."""
    stages = len(read["widths"])
    given, back = full["transformer_layers_per_block"], full.get("reverse_transformer_layers_per_block")
    if back is None and not isinstance(given, int) and not all(isinstance(entry, int) for entry in given):
        what = f"transformer_layers_per_block={given!r} differs within a stage"
        raise ValueError(f"not a U-Net of this family: {what}, and nothing says what it is on the way up")
    given = (given,) * stages if isinstance(given, int) else tuple(given)
    back = given if back is None else tuple(reversed(back))
    down, up = (
        tuple(
            _layers(entries[stage], 0 if read[f"{side}_attention"][stage] == NONE else layers + extra)
            for stage, layers in enumerate(read["layers_per_block"])
        )
        for side, entries, extra in (("down", given, 0), ("up", back, 1))
    )
    deepest = tuple(
        max(down[stage] + up[stage]) if down[stage] + up[stage] else _layers(given[stage], 1)[0]
        for stage in range(stages)
    )
    regular = all(len(set(one + other)) <= 1 for one, other in zip(down, up, strict=True))
    irregular: dict[str, Any] = {} if regular else {"down_depths": down, "up_depths": up}
    return {"transformer_layers": deepest, **irregular}


def _layers(depth: Any, layers: int) -> tuple[int, ...]:
    """One depth a layer, from one number for all of them or a list that may be longer, as diffusers reads it."""
    if isinstance(depth, int):
        return (depth,) * layers
    if len(depth) < layers:
        raise ValueError(f"not a U-Net of this family: depths {depth!r} for {layers} layers")
    return tuple(depth[:layers])


def _with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fills fields that older config.json files leave out with the defaults of the class that they name."""
    from diffusers import UNet2DConditionModel
    from diffusers.models.unets.unet_dreamlite import DreamLiteUNetModel

    name = config.get("_class_name", "DreamLiteUNetModel" if "num_kv_heads" in config else "UNet2DConditionModel")
    classes = {"UNet2DConditionModel": UNet2DConditionModel, "DreamLiteUNetModel": DreamLiteUNetModel}
    if name not in classes:
        raise ValueError(f"not a U-Net of this family: class {name!r}")
    parameters = inspect.signature(classes[name].__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    return {**defaults, **{key: _tupled(value) for key, value in config.items()}}


def _outside_the_family(full: Mapping[str, Any]) -> list[str]:
    """The settings that no spec can express, as they would stand in an error message."""
    odd = [f"{name}={full[name]!r}" for name, value in _FIXED.items() if full.get(name, value) != value]
    odd += [f"block {name!r}" for name in (*full["down_block_types"], *full["up_block_types"]) if name not in _KINDS]
    allowed: dict[str, tuple[str | None, ...]] = {
        "mid_block_type": tuple(_MIDDLES),
        "addition_embed_type": (None, "text_time", "time"),
        "encoder_hid_dim_type": (None, "text_proj_rms"),
        "mid_block_only_cross_attention": (None, False),  # type: ignore[dict-item]
    }
    odd += [f"{name}={full.get(name)!r}" for name, values in allowed.items() if full.get(name) not in values]
    if full.get("encoder_hid_dim") and not full.get("encoder_hid_dim_type"):
        odd.append(f"encoder_hid_dim={full['encoder_hid_dim']!r} without encoder_hid_dim_type")
    if full.get("num_attention_heads"):
        odd.append("num_attention_heads (diffusers refuses it; attention_head_dim holds the number of heads)")
    cross_dim = full["cross_attention_dim"]
    if not isinstance(cross_dim, int) and len(set(cross_dim)) != 1:
        odd.append(f"cross_attention_dim={cross_dim!r}")
    if not isinstance(full["norm_num_groups"], int):
        odd.append(f"norm_num_groups={full['norm_num_groups']!r}")
    return odd


def _size_embedding(full: Mapping[str, Any], pooled_dim: int | None) -> tuple[int, int | None]:
    """(size_values, pooled_dim) behind `projection_class_embeddings_input_dim`."""
    kind, dim = full.get("addition_embed_type"), full.get("addition_time_embed_dim")
    if kind is None or dim is None:
        return 0, None
    total = full["projection_class_embeddings_input_dim"]
    if kind == "time":
        return total // dim, None
    if pooled_dim is None:
        pooled_dim = total - (6 if total > 6 * dim else 2) * dim
    size_values, rest = divmod(total - pooled_dim, dim)
    if rest or size_values < 0:
        raise ValueError(f"add_embedding reads {total} numbers, which {pooled_dim} pooled and {dim} a size cannot fill")
    return size_values, pooled_dim


def _per_stage(value: Any, stages: int) -> tuple[int, ...]:
    values = (value,) * stages if isinstance(value, int) else tuple(value)
    if not all(isinstance(entry, int) for entry in values):
        raise ValueError(f"not a U-Net of this family: {value!r} differs within a stage")
    return values


def _tupled(value: Any) -> Any:
    return tuple(_tupled(entry) for entry in value) if isinstance(value, list) else value
