"""Pruning of a teacher that is larger than memory: by its weights alone, read and written tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from compress.config.budget import UNIFORM
from compress.config.prune import PruneConfig
from compress.errors import Problem
from students.spec import StudentSpec

CRITERIA = ("magnitude", "random")
LAYER_RULES = ("weights", "bk_sdm", "koala")
DTYPES = ("bf16", "fp16", "fp32")


@dataclass(frozen=True, kw_only=True)
class StreamConfig(PruneConfig):
    """As PruneConfig, at SDXL's size; nothing is calibrated, fitted or measured on samples.

    `cross_dim` is the width that keys and values of cross-attention read, which the text is projected to. `dtype` is
    the number format of the student's file.
    """

    runner: ClassVar[str] = "compress.pruning.stream.stage:run"

    widths: tuple[int, ...] = (256, 512, 896)
    layers_per_block: int = 2
    transformer_layers: tuple[int, ...] = (1, 2, 4)
    cross_dim: int = 2304
    criterion: str = "magnitude"
    kv_merge: str = "mean"
    compensated: tuple[str, ...] = ()
    unstructured_baseline: bool = False
    dtype: str = "bf16"

    def goal(self, teacher: StudentSpec) -> StudentSpec:
        """The student that all steps together lead to."""
        goal = super().goal(teacher)
        return goal if goal.plain else replace(goal, cross_dim=self.cross_dim)

    def problems(self) -> list[Problem]:
        """Also: nothing that would take samples."""
        return [
            *super().problems(),
            *self.expect(
                self.criterion in CRITERIA,
                "criterion",
                f"Use {' or '.join(CRITERIA)}: the others need samples, and none goes through a streamed network.",
            ),
            *self.expect(
                self.layer_rule in (None, *LAYER_RULES),
                "layer_rule",
                f"Use one of {', '.join(LAYER_RULES)}, or none: the others need samples.",
            ),
            *self.expect(
                self.budget is None or self.budget.allocation == UNIFORM,
                "budget",
                f"Set its allocation to {UNIFORM!r}: the others would score the whole teacher before the first cut.",
            ),
            *self.expect(not self.compensated, "compensated", "Leave it empty: there are no samples to refit on."),
            *self.expect(not self.unstructured_baseline, "unstructured_baseline", "Switch it off: it takes samples."),
            *self.expect(self.dtype in DTYPES, "dtype", f"Use one of {', '.join(DTYPES)}."),
        ]
