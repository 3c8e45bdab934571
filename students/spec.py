"""An architecture as data: `StudentSpec` <-> the configuration of a diffusers U-Net, and which widths the NPU likes.

One family covers the teacher, the student and every network between them: with plain convolutions, as many key/value
heads as query heads, no QK-norm and no text projection, `DreamLiteUNetModel` computes what `UNet2DConditionModel` does.
Stages are numbered from the highest resolution down; up blocks are described by their stage, not by their order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers.models.unets.unet_dreamlite import DreamLiteUNetModel

LATTICE = 64  # 32 norm groups, an even number of channels in each, and whole 64-wide heads
NPU_CHANNELS = 32  # HTP stores channels in multiples of this
NONE, CROSS, SELF_CROSS = "none", "cross", "self+cross"  # what a stage's transformer blocks attend to

_DOWN = {NONE: "DreamLiteDownBlock2D", CROSS: "DreamLiteCrossAttnNoSelfAttnDownBlock2D"}
_DOWN[SELF_CROSS] = "DreamLiteCrossAttnDownBlock2D"
_UP = {kind: name.replace("Down", "Up") for kind, name in _DOWN.items()}
_ALIASES = {
    **{name: kind for kind, name in (*_DOWN.items(), *_UP.items())},
    "DownBlock2D": NONE,
    "UpBlock2D": NONE,
    "CrossAttnDownBlock2D": SELF_CROSS,
    "CrossAttnUpBlock2D": SELF_CROSS,
    "CrossAttnDownRemoveSelfAttnBlock2D": CROSS,
    "CrossAttnUpRemoveSelfAttnBlock2D": CROSS,
    "CrossAttnUpRemoveSelfAttnBlock2DV1": CROSS,
}
# What this family does not vary: a configuration that sets one of these otherwise is refused, not misread.
_FIXED = {
    "act_fn": "silu",
    "center_input_sample": False,
    "class_embed_type": None,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
    "num_mid_layers": 1,
    "only_cross_attention": False,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
}


@dataclass(frozen=True, kw_only=True)
class StudentSpec:
    """One U-Net of the family. Tuples have one entry a stage, highest resolution first.

    down_attention and up_attention hold "none", "cross" or "self+cross"; the middle block always has both.
    heads times 64 is the width in every legal student. kv_heads None means as many as heads. text_dim is the width of
    the text encoder where it is projected (`text_proj_rms`), None where tokens come in at cross_dim already.
    pooled_dim is the width of the pooled text embedding, None without one. size_values numbers of size_dim sinusoids
    each describe the picture's size: 6 in SDXL, 2 (width, height) in DreamLite, 0 without a size embedding.
    """

    widths: tuple[int, ...]
    layers_per_block: tuple[int, ...]
    transformer_layers: tuple[int, ...]
    heads: tuple[int, ...]
    down_attention: tuple[str, ...]
    up_attention: tuple[str, ...]
    cross_dim: int
    text_dim: int | None = None
    pooled_dim: int | None = None
    size_dim: int = 0
    size_values: int = 0
    kv_heads: int | None = None
    ff_mult: int = 4
    qk_norm: bool = False
    separable: bool = False
    linear_projection: bool = True
    in_channels: int = 4
    out_channels: int = 4
    sample_size: int | None = None
    norm_groups: int = 32
    norm_eps: float = 1e-5

    @classmethod
    def from_config(cls, config: Mapping[str, Any], pooled_dim: int | None = None) -> StudentSpec:
        """Reads the configuration of a `UNet2DConditionModel` or `DreamLiteUNetModel`.

        A "text_time" configuration gives only the sum of pooled and size widths; `pooled_dim` splits it where it is
        known from the text encoder. Otherwise six numbers are taken to describe the size, as SDXL's pipelines pass,
        or two where six would leave no room for the text.

        Raises ValueError, naming the fields, where the network is not of this family.
        """
        full = _with_defaults(config)
        if odd := _outside_the_family(full):
            raise ValueError(f"not a U-Net of this family: {', '.join(odd)}")
        stages = len(full["block_out_channels"])
        size_dim = full.get("addition_time_embed_dim") or 0
        size_values, pooled_dim = _size_embedding(full, pooled_dim)
        heads = full.get("num_attention_heads") or full["attention_head_dim"]
        return cls(
            widths=tuple(full["block_out_channels"]),
            layers_per_block=_per_stage(full["layers_per_block"], stages),
            transformer_layers=_per_stage(full["transformer_layers_per_block"], stages),
            heads=_per_stage(heads, stages),
            down_attention=tuple(_ALIASES[name] for name in full["down_block_types"]),
            up_attention=tuple(_ALIASES[name] for name in reversed(full["up_block_types"])),
            cross_dim=full["cross_attention_dim"],
            text_dim=full.get("encoder_hid_dim") if full.get("encoder_hid_dim_type") else None,
            pooled_dim=pooled_dim,
            size_dim=size_dim,
            size_values=size_values,
            kv_heads=full.get("num_kv_heads"),
            ff_mult=full.get("ff_mult", 4),
            qk_norm=full.get("qk_norm") == "rms_norm",
            separable=bool(full.get("use_sep_conv", False)),
            linear_projection=bool(full["use_linear_projection"]),
            in_channels=full["in_channels"],
            out_channels=full["out_channels"],
            sample_size=full.get("sample_size"),
            norm_groups=full["norm_num_groups"],
            norm_eps=full["norm_eps"],
        )

    def to_config(self) -> dict[str, Any]:
        """The arguments of `DreamLiteUNetModel`; what `config.json` of a student holds."""
        addition = "text_time" if self.pooled_dim else ("time" if self.size_values else None)
        return {
            "sample_size": self.sample_size,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "down_block_types": tuple(_DOWN[kind] for kind in self.down_attention),
            "up_block_types": tuple(_UP[kind] for kind in reversed(self.up_attention)),
            "block_out_channels": self.widths,
            "layers_per_block": _collapse(self.layers_per_block),
            "transformer_layers_per_block": self.transformer_layers,
            "attention_head_dim": self.heads,  # diffusers' name; it means the number of heads
            "cross_attention_dim": self.cross_dim,
            "encoder_hid_dim": self.text_dim,
            "encoder_hid_dim_type": None if self.text_dim is None else "text_proj_rms",
            "use_linear_projection": self.linear_projection,
            "addition_embed_type": addition,
            "addition_time_embed_dim": self.size_dim or None,
            "projection_class_embeddings_input_dim": self.added_dim if addition else None,
            "norm_num_groups": self.norm_groups,
            "norm_eps": self.norm_eps,
            "qk_norm": "rms_norm" if self.qk_norm else None,
            "use_sep_conv": self.separable,
            "ff_mult": self.ff_mult,
            "num_kv_heads": self.kv_heads,
        }

    @property
    def added_dim(self) -> int:
        """Width of what `add_embedding` reads: pooled text first, then the size's sinusoids."""
        return (self.pooled_dim or 0) + self.size_values * self.size_dim

    @property
    def stages(self) -> int:
        return len(self.widths)

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that differ wherever the architecture does."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def build(self) -> DreamLiteUNetModel:
        """A network of this architecture with fresh weights, in evaluation mode.

        Under `accelerate.init_empty_weights()` it has shapes but no weights, at any size in about a second.
        """
        from diffusers.models.unets.unet_dreamlite import DreamLiteUNetModel

        return DreamLiteUNetModel(**self.to_config()).eval()

    def problems(self) -> list[tuple[str, str]]:
        """(what, remedy) for everything that keeps this from being a legal student; empty when it is one."""
        found = [
            _named(f"{name} has {len(getattr(self, name))} entries for {self.stages} stages", "give one a stage")
            for name in _PER_STAGE
            if len(getattr(self, name)) != self.stages
        ]
        if found:
            return found
        for stage, (width, heads) in enumerate(zip(self.widths, self.heads, strict=True)):
            if width < LATTICE or width % LATTICE:
                low = max(LATTICE, width // LATTICE * LATTICE)
                found.append(
                    _named(
                        f"width {width} of stage {stage} is not on the lattice of {LATTICE} channels",
                        f"choose {low} or {max(low, width) // LATTICE * LATTICE + LATTICE}: 32 norm groups need an "
                        "even number of channels each, or the HTP's InstanceNorm comes out wrong",
                    )
                )
            elif heads * LATTICE != width:
                found.append(_named(f"stage {stage} has {heads} heads at width {width}", f"use {width // LATTICE}"))
            if self.kv_heads and heads % self.kv_heads:
                found.append(_named(f"{self.kv_heads} kv_heads do not divide {heads} heads", "use kv_heads=1"))
        for name in ("layers_per_block", "transformer_layers"):
            if min(getattr(self, name)) < 1:
                found.append(_named(f"{name} is {getattr(self, name)}", "every stage needs at least 1"))
        if self.cross_dim % NPU_CHANNELS:
            found.append(_named(f"cross_dim {self.cross_dim} is not a multiple of {NPU_CHANNELS}", "round it up"))
        if self.ff_mult < 1:
            found.append(_named(f"ff_mult is {self.ff_mult}", "use 3, or any whole number from 1 to 4"))
        if SELF_CROSS not in (self.down_attention[-1], self.up_attention[-1]):
            found.append(_named("the lowest stage has no self-attention", 'keep "self+cross" there'))
        return found


_PER_STAGE = ("layers_per_block", "transformer_layers", "heads", "down_attention", "up_attention")


def with_heads(spec: StudentSpec) -> StudentSpec:
    """The same with as many 64-wide heads as fit each width."""
    return replace(spec, heads=tuple(width // LATTICE for width in spec.widths))


def _with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fills fields that older config.json files leave out with the defaults of the class that they name."""
    import inspect

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
    odd += [f"block {name!r}" for name in (*full["down_block_types"], *full["up_block_types"]) if name not in _ALIASES]
    allowed: dict[str, tuple[str | None, ...]] = {
        "mid_block_type": ("UNetMidBlock2DCrossAttn", "DreamLiteUNetMidBlock2DCrossAttn"),
        "addition_embed_type": (None, "text_time", "time"),
        "encoder_hid_dim_type": (None, "text_proj_rms"),
    }
    odd += [f"{name}={full.get(name)!r}" for name, values in allowed.items() if full.get(name) not in values]
    if not isinstance(full["cross_attention_dim"], int):
        odd.append(f"cross_attention_dim={full['cross_attention_dim']!r}")
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


def _collapse(values: tuple[int, ...]) -> int | tuple[int, ...]:
    return values[0] if len(set(values)) == 1 else values


def _tupled(value: Any) -> Any:
    return tuple(_tupled(entry) for entry in value) if isinstance(value, list) else value


def _named(what: str, remedy: str) -> tuple[str, str]:
    return what, remedy[0].upper() + remedy[1:] + "."


SPEC_FIELDS = tuple(field.name for field in fields(StudentSpec))
