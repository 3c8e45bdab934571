"""Pruning of a teacher that is larger than memory: read and written tensor by tensor, by its weights alone or by what
samples show of it in 16 bits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from compress.config.budget import UNIFORM
from compress.config.prune import PruneConfig
from compress.errors import Problem
from students.spec import StudentSpec

CRITERIA = ("magnitude", "random")
LAYER_RULES = ("weights", "bk_sdm", "koala")
CALIBRATED_CRITERIA = (*CRITERIA, "activation", "taylor", "fisher", "diff_pruning", "obs_diff")
CALIBRATED_LAYER_RULES = (*LAYER_RULES, "laptop")
DTYPES = ("bf16", "fp16", "fp32")


@dataclass(frozen=True, kw_only=True)
class StreamConfig(PruneConfig):
    """As PruneConfig, at SDXL's size; nothing is refitted or measured on samples.

    `calibrated` reads samples from the teacher's folder (`compress.pruning.stream.samples` says how they lie there).
    Criteria may then look at data, and norms are fitted to activations: for that, and for that long, the network that
    is being cut is in memory in bf16. The first `calibration_samples` are used. Criteria that learn masks are not
    offered, and OBS-Diff scores without making up for what it cuts.

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
    calibrated: bool = field(default=False, metadata={"absent_means": False})

    def goal(self, teacher: StudentSpec) -> StudentSpec:
        """The student that all steps together lead to."""
        goal = super().goal(teacher)
        return goal if goal.plain else replace(goal, cross_dim=self.cross_dim)

    def problems(self) -> list[Problem]:
        """Also: nothing that would take samples that are not there."""
        criteria = CALIBRATED_CRITERIA if self.calibrated else CRITERIA
        rules = CALIBRATED_LAYER_RULES if self.calibrated else LAYER_RULES
        fix = "the others train masks." if self.calibrated else "the others need samples; see calibrated."
        return [
            *super().problems(),
            *self.expect(self.criterion in criteria, "criterion", f"Use one of {', '.join(criteria)}: {fix}"),
            *self.expect(
                self.layer_rule in (None, *rules), "layer_rule", f"Use one of {', '.join(rules)}, or none: {fix}"
            ),
            *self.expect(
                self.budget is None or self.budget.allocation == UNIFORM,
                "budget",
                f"Set its allocation to {UNIFORM!r}: the others would score the whole teacher before the first cut.",
            ),
            *self.expect(not self.compensated, "compensated", "Leave it empty: nothing is refitted in a stream."),
            *self.expect(not self.unstructured_baseline, "unstructured_baseline", "Switch it off: it takes samples."),
            *self.expect(self.dtype in DTYPES, "dtype", f"Use one of {', '.join(DTYPES)}."),
        ]
