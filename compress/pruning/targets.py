"""For every layer of a student that can be refitted, the teacher's feature map that it should write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from compress.pruning.features import Place, TeacherFeatures
from compress.pruning.lineage import Lineage


class Targets:
    """Teacher features in the student's layers and channels. Names are those of the student's modules."""

    def __init__(
        self, modules: Mapping[str, Any], blocks: Iterable[str], teacher: TeacherFeatures, lineage: Lineage
    ) -> None:
        self.modules, self.blocks, self.teacher, self.lineage = modules, list(blocks), teacher, lineage
        teacher.record(self._places())

    def named(self, ending: str) -> list[str]:
        """Modules whose class is called so."""
        return [name for name, module in self.modules.items() if ending in type(module).__name__]

    def has(self, name: str) -> bool:
        """Whether the teacher has the module that this one stands for; a new layer has none."""
        return self.lineage.source(name) in self.teacher.modules

    def _places(self) -> Iterator[Place]:
        yield "conv_out", "out"
        for name in self.named("ResnetBlock"):
            yield self.resnet(name)
            yield self.inner(name)
        for name in self.named("Transformer2DModel"):
            yield self.layer_end(name)
        for name in self.blocks:
            yield from (self.stream(name, "norm2"), self.stream(name, "norm3"), self.block_end(name))
        for name in self.named("sample2D"):
            yield f"{name}.conv", "out"
        for name in self.named("GroupNorm"):
            yield self.norm(name)

    def resnet(self, name: str) -> Place:
        """A residual block before a transformer writes what that transformer was trained on; otherwise it ends its
        layer."""
        attention = name.replace(".resnets.", ".attentions.")
        theirs = self.lineage.source(attention)
        if name.startswith("mid_block"):
            return name, "out"
        if attention in self.modules and theirs in self.teacher.modules:
            return theirs.replace(".attentions.", ".resnets."), "out"
        return self.layer_end(name)

    def inner(self, name: str) -> Place:
        """What a residual block's first convolution and time embedding write together."""
        return f"{self.lineage.source(name)}.norm2", "in"

    def layer_end(self, name: str) -> Place:
        """The output of the last of the teacher's layers that a student's layer stands for."""
        if name.startswith("mid_block"):
            return name, "out"
        last = self.lineage.reach(name.replace(".attentions.", ".resnets."))
        attention = last.replace(".resnets.", ".attentions.")
        return (attention if attention in self.teacher.modules else last), "out"

    def stream(self, block: str, norm: str) -> Place:
        """The hidden state of a transformer block as it enters one of its norms."""
        return f"{self.lineage.source(block)}.{norm}", "in"

    def block_end(self, block: str) -> Place:
        """The hidden state after the last of the teacher's blocks that a student's block stands for."""
        return self.lineage.reach(block), "out"

    def norm(self, name: str) -> Place:
        """The output of a GroupNorm."""
        return self.lineage.source(name), "out"

    def get(self, place: Place, parameter: str, axis: int) -> Tensor | None:
        """The feature, reduced to the channels that the parameter still writes; None where the teacher has none."""
        return self.lineage.take(self.teacher[place], parameter, axis) if place in self.teacher else None
