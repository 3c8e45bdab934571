"""Which part of the teacher each part of a student stands for: layers, and the channels of its streams.

Depth and width record what they kept; from that follows, for every feature map of the student, the teacher's feature
map that it should equal. Where layers were dropped, the layer before them has to reach further: its target is the
teacher's output after the dropped ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Lineage:
    """`layers`: a list of modules of the student ("up_blocks.1.resnets") -> numbers that they have in the teacher.
    `channels`: (parameter of the student, 0) -> which of the teacher's output channels it kept."""

    layers: dict[str, list[int]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    channels: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def keep(self, modules: str, numbers: list[int], size: int) -> None:
        """Notes that of the teacher's `size` entries in a module list these remain, in order."""
        self.layers[modules], self.sizes[modules] = numbers, size

    def source(self, module: str) -> str:
        """The teacher's name of the module that a student's module was made from."""
        renamed: list[str] = []
        parts = module.split(".")
        for position, part in enumerate(parts):
            student_list = ".".join(parts[:position])
            if part.isdigit() and student_list in self.layers:
                part = str(self.layers[student_list][int(part)])
            renamed.append(part)
        return ".".join(renamed)

    def reach(self, module: str) -> str:
        """The teacher's module whose output the output of a student's layer should equal: the last one before the
        next layer that was kept."""
        modules, _, number = module.rpartition(".")
        if modules not in self.layers:
            return self.source(module)
        kept, position = self.layers[modules], int(number)
        last = kept[position + 1] - 1 if position + 1 < len(kept) else self.sizes[modules] - 1
        return f"{self.source(modules)}.{last}"

    def take(self, feature: Tensor, parameter: str, axis: int) -> Tensor:
        """The teacher's feature with only the channels, along `axis`, that a student's parameter writes."""
        kept = self.channels.get((parameter, 0))
        return feature if kept is None else feature.index_select(axis, kept.to(feature.device))
