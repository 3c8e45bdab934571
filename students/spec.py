"""An architecture as data: `StudentSpec` <-> the configuration of a diffusers U-Net, and which widths the NPU likes.

One family covers the teacher, the student and every network between them: with plain convolutions, as many key/value
heads as query heads, no QK-norm and no text projection, `DreamLiteUNetModel` computes what `UNet2DConditionModel` does.
A spec is therefore built as the former unless it says `plain`; reading.py and writing.py know the configurations.
Stages are numbered from the highest resolution down; up blocks are described by their stage, not by their order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

LATTICE = 64  # 32 norm groups, an even number of channels in each, and whole 64-wide heads
NPU_CHANNELS = 32  # HTP stores channels in multiples of this
HEAD_WIDTH = 64  # of every family but SD 1.x
NONE, CROSS, SELF_CROSS = "none", "cross", "self+cross"  # what a stage's transformer blocks attend to
RESNET = "resnet"  # a middle block of one residual block and no transformer


@dataclass(frozen=True, kw_only=True)
class StudentSpec:
    """One U-Net of the family. Tuples have one entry a stage, highest resolution first.

    down_attention and up_attention hold "none", "cross" or "self+cross"; middle holds "self+cross" (residual block,
    transformer, residual block), "resnet" (one residual block) or "none". heads times 64 is the width in every legal
    student, unless heads_fixed: then heads stay as many and grow thinner with the width, as SD 1.x's have to. Where
    depths differ between a stage's layers, down_depths and up_depths list them, one tuple a stage and one entry a layer
    (an empty tuple where there is no transformer), and transformer_layers holds the greatest. kv_heads None means as
    many as heads. text_dim is the width of the text encoder where it is projected (`text_proj_rms`), None where tokens
    come in at cross_dim already. pooled_dim is the width of the pooled text embedding, None without one. size_values
    numbers of size_dim sinusoids each describe the picture's size: 6 in SDXL, 2 (width, height) in DreamLite, 0 without
    a size embedding. A plain spec is built as `UNet2DConditionModel`, any other as `DreamLiteUNetModel`.
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
    middle: str = SELF_CROSS
    down_depths: tuple[tuple[int, ...], ...] | None = None
    up_depths: tuple[tuple[int, ...], ...] | None = None
    heads_fixed: bool = False
    plain: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any], pooled_dim: int | None = None) -> StudentSpec:
        """Reads the configuration of a `UNet2DConditionModel` or `DreamLiteUNetModel`.

        A "text_time" configuration gives only the sum of pooled and size widths; `pooled_dim` splits it where it is
        known from the text encoder. Otherwise six numbers are taken to describe the size, as SDXL's pipelines pass,
        or two where six would leave no room for the text.

        Raises ValueError, naming the fields, where the network is not of this family.
        """
        from students.reading import read

        return cls(**read(config, pooled_dim))

    def to_config(self) -> dict[str, Any]:
        """The arguments of the spec's class; what `config.json` of a student holds.

        Raises ValueError, with the reasons, for what that class cannot express.
        """
        from students.writing import config_of

        return config_of(self)

    @property
    def added_dim(self) -> int:
        """Width of what `add_embedding` reads: pooled text first, then the size's sinusoids."""
        return (self.pooled_dim or 0) + self.size_values * self.size_dim

    @property
    def stages(self) -> int:
        return len(self.widths)

    def depths(self, side: str, stage: int) -> tuple[int, ...]:
        """Transformer blocks of each layer of a stage on its way "down" or "up"; empty where there is no attention."""
        listed = self.down_depths if side == "down" else self.up_depths
        if listed is not None:
            return listed[stage]
        if (self.down_attention if side == "down" else self.up_attention)[stage] == NONE:
            return ()
        return (self.transformer_layers[stage],) * (self.layers_per_block[stage] + (side == "up"))

    @property
    def middle_depth(self) -> int:
        """Transformer blocks of the middle block: diffusers gives it as many as the lowest stage's first layer."""
        if self.middle != SELF_CROSS:
            return 0
        return (self.depths("down", self.stages - 1) or self.transformer_layers[-1:])[0]

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that differ wherever the architecture does."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def build(self) -> UNet2DConditionModel:
        """A network of this architecture with fresh weights, in evaluation mode; ValueError as for `to_config`.

        Under `accelerate.init_empty_weights()` it has shapes but no weights, at any size in about a second.
        """
        from diffusers import UNet2DConditionModel
        from diffusers.models.unets.unet_dreamlite import DreamLiteUNetModel

        return (UNet2DConditionModel if self.plain else DreamLiteUNetModel)(**self.to_config()).eval()

    def problems(self) -> list[tuple[str, str]]:
        """(what, remedy) for everything that keeps this from being a legal student; empty when it is one."""
        found = [
            _named(f"{name} has {len(getattr(self, name))} entries for {self.stages} stages", "give one a stage")
            for name in _PER_STAGE
            if len(getattr(self, name)) != self.stages
        ]
        if found:
            return found
        for stage in range(self.stages):
            found += _width_problems(self, stage)
        if min(self.layers_per_block) < 1:
            found.append(_named(f"layers_per_block is {self.layers_per_block}", "every stage needs at least 1"))
        found += _depth_problems(self)
        if self.cross_dim % NPU_CHANNELS:
            found.append(_named(f"cross_dim {self.cross_dim} is not a multiple of {NPU_CHANNELS}", "round it up"))
        if self.ff_mult < 1:
            found.append(_named(f"ff_mult is {self.ff_mult}", "use 3, or any whole number from 1 to 4"))
        attending = [
            kinds for kinds in zip(self.down_attention, self.up_attention, strict=True) if set(kinds) != {NONE}
        ]
        if attending and SELF_CROSS not in attending[-1]:
            found.append(_named("the lowest stage has no self-attention", 'keep "self+cross" there'))
        return found + self.unexpressed()

    def unexpressed(self) -> list[tuple[str, str]]:
        """(what, remedy) for everything that no config.json of this spec's class says; empty for what can be built."""
        from students.writing import unexpressed

        return list(unexpressed(self))


_PER_STAGE = ("layers_per_block", "transformer_layers", "heads", "down_attention", "up_attention")


def with_heads(spec: StudentSpec) -> StudentSpec:
    """The same with as many 64-wide heads as fit each width, unless the spec's heads stay as many as they are."""
    if spec.heads_fixed:
        return spec
    return replace(spec, heads=tuple(width // HEAD_WIDTH for width in spec.widths))


def _width_problems(spec: StudentSpec, stage: int) -> list[tuple[str, str]]:
    width, heads, found = spec.widths[stage], spec.heads[stage], []
    if width < LATTICE or width % LATTICE:
        low = max(LATTICE, width // LATTICE * LATTICE)
        what = f"width {width} of stage {stage} is not on the lattice of {LATTICE} channels"
        remedy = f"choose {low} or {max(low, width) // LATTICE * LATTICE + LATTICE}: 32 norm groups need an even number"
        found.append(_named(what, f"{remedy} of channels each, or the HTP's InstanceNorm comes out wrong"))
    elif spec.heads_fixed and width % heads:
        found.append(
            _named(f"{heads} heads do not divide width {width} of stage {stage}", f"use a multiple of {heads}")
        )
    elif not spec.heads_fixed and heads * HEAD_WIDTH != width:
        found.append(_named(f"stage {stage} has {heads} heads at width {width}", f"use {width // HEAD_WIDTH}"))
    if spec.kv_heads and heads % spec.kv_heads:
        found.append(_named(f"{spec.kv_heads} kv_heads do not divide {heads} heads", "use kv_heads=1"))
    return found


def _depth_problems(spec: StudentSpec) -> list[tuple[str, str]]:
    found = []
    for side in ("down", "up"):
        for stage, layers in enumerate(spec.layers_per_block):
            kind = getattr(spec, f"{side}_attention")[stage]
            depths, want = spec.depths(side, stage), 0 if kind == NONE else layers + (side == "up")
            if len(depths) != want:
                found.append(_named(f"{side}_depths of stage {stage} are {depths}", f"give {want}, one a layer"))
            elif min(depths, default=1) < 1:
                what = f"transformer_layers is {spec.transformer_layers}, and stage {stage} has depths {depths}"
                found.append(_named(what, "every layer with attention needs at least 1"))
    if spec.middle == SELF_CROSS and spec.middle_depth < 1:
        found.append(_named("the middle block's transformer has no blocks", "give the lowest stage at least 1"))
    if (spec.down_depths is None) != (spec.up_depths is None):
        found.append(_named("only one of down_depths and up_depths is given", "give both or neither"))
    return found


def _named(what: str, remedy: str) -> tuple[str, str]:
    return what, remedy[0].upper() + remedy[1:] + "."


SPEC_FIELDS = tuple(field.name for field in fields(StudentSpec))
