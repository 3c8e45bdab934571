"""Structured pruning of a trained U-Net to the student, by named operators; no training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from compress.config.base import StageConfig
from compress.config.budget import GLOBAL, ISOMORPHIC, Budget
from compress.errors import Problem
from students.spec import CROSS, NONE, SELF_CROSS, StudentSpec, with_heads

# In the order of SnapGen and DreamLite; a test holds this list to compress.pruning.surgery.OPERATORS.
STEPS = (
    "depth",
    "width",
    "self_attention",
    "separable",
    "multi_query",
    "feed_forward",
    "cross_attention",
    "qk_norm",
    "text_projection",
    "size_embedding",
)
PAIR = "pair"  # not an operator: the finished student on (target | condition)
CRITERIA = ("random", "magnitude", "activation", "taylor", "fisher", "diff_pruning", "obs_diff", "eco_diff")
LAYER_RULES = ("weights", "laptop", "bk_sdm", "koala", "tiny_fusion")
KV_MERGES = ("mean", "svd")
CLASSES = ("DreamLiteUNetModel", "UNet2DConditionModel")
PLAIN_STEPS = ("depth", "width")  # all that UNet2DConditionModel's config.json can say


@dataclass(frozen=True, kw_only=True)
class PruneConfig(StageConfig):
    """Teacher -> DreamLite student. Tuples have one entry a stage, highest resolution first.

    `steps` are the operators that are carried out, in order; a feature whose step is left out stays as the teacher
    has it. `criterion` scores channels, heads and neurons; `layer_rule` chooses layers and transformer blocks, by
    default "laptop", or "weights" where the criterion looks at no data; `kv_merge` says how key/value heads become
    `kv_heads`.
    `budget_parameters_m` and `budget_macs_g` (a forward on a pair), where given, choose the widths instead of `widths`.
    `budget` chooses widths, depths and (up to `ff_mult`) the feed-forward, within 1 % below its limits; `widths`,
    `layers_per_block` and `transformer_layers` then say nothing.

    Importance and activations are read from `calibration_samples` prompts. After the steps in `compensated` (and after
    "pair": the student on the input it will be given) linear layers are refitted by ridge regression on
    `fitting_samples`, pulled towards their inherited weights by whichever of `ridges` generalises best. Errors are
    measured on `held_out_samples`.

    `student_class` "UNet2DConditionModel" keeps the teacher's own class and everything that its config.json cannot
    vary: the student is narrower and shallower, its middle block stays, and it generates only. Its steps are depth and
    width.
    """

    kind: ClassVar[str] = "prune"
    runner: ClassVar[str] = "compress.stages.prune:run"

    name: str = "prune"
    widths: tuple[int, ...] = (64, 128, 192)
    layers_per_block: int = 1
    transformer_layers: tuple[int, ...] = (1, 1, 1)
    kv_heads: int = 1
    ff_mult: int = 3
    steps: tuple[str, ...] = STEPS
    criterion: str = "taylor"
    kv_merge: str = "svd"
    budget_parameters_m: float | None = None
    budget_macs_g: float | None = None
    calibration_samples: int = 64
    fitting_samples: int = 384
    held_out_samples: int = 64
    compensated: tuple[str, ...] = ("depth", "separable", PAIR)
    ridges: tuple[float, ...] = (0.01, 0.1, 1.0)
    unstructured_baseline: bool = True
    layer_rule: str | None = field(default=None, metadata={"absent_means": None})
    budget: Budget | None = field(default=None, metadata={"absent_means": None})
    student_class: str = field(default=CLASSES[0], metadata={"absent_means": CLASSES[0]})

    def goal(self, teacher: StudentSpec) -> StudentSpec:
        """The student that all steps together lead to, from what the teacher's spec leaves open (text, latent)."""
        if self.student_class == "UNet2DConditionModel":
            return self._plain_goal(teacher)
        stages = len(self.widths)
        attending = [stage for stage, kind in enumerate(teacher.down_attention) if kind != NONE]
        lowest = min(attending[-1] if attending else stages, stages - 1)
        first = CROSS if teacher.up_attention[0] != NONE and lowest else NONE
        spec = StudentSpec(
            widths=self.widths,
            layers_per_block=(self.layers_per_block,) * stages,
            transformer_layers=self.transformer_layers,
            heads=(1,) * stages,
            down_attention=_attention(CROSS, lowest, stages),
            up_attention=_attention(first, lowest, stages),
            middle=SELF_CROSS if teacher.middle == SELF_CROSS else NONE,
            cross_dim=teacher.cross_dim,
            text_dim=teacher.text_dim or teacher.cross_dim,
            size_dim=teacher.size_dim,
            size_values=2 if teacher.size_dim else 0,
            kv_heads=self.kv_heads,
            ff_mult=self.ff_mult,
            qk_norm=True,
            separable=True,
            in_channels=teacher.in_channels,
            out_channels=teacher.out_channels,
            linear_projection=teacher.linear_projection,
            sample_size=teacher.sample_size,
        )
        return with_heads(spec)

    def _plain_goal(self, teacher: StudentSpec) -> StudentSpec:
        """The teacher with other widths and depths. Where its depths differ from layer to layer, they stay as they are
        if the configuration repeats the teacher's numbers, and are one number a stage otherwise."""
        layers = (self.layers_per_block,) * len(self.widths)
        same = layers == teacher.layers_per_block and self.transformer_layers == teacher.transformer_layers
        goal = replace(
            teacher,
            widths=self.widths,
            layers_per_block=layers,
            transformer_layers=self.transformer_layers,
            down_depths=teacher.down_depths if same else None,
            up_depths=teacher.up_depths if same else None,
            plain=True,
        )
        return with_heads(goal)

    def problems(self) -> list[Problem]:
        """Also: widths on the lattice, known steps in a workable order, positive sample counts."""
        where = f"stage {self.name!r}"
        stages = len(self.widths)
        found = [
            *super().problems(),
            *self.expect(len(self.transformer_layers) == stages, "transformer_layers", f"Give {stages}, one a stage."),
            *self.expect(self.criterion in CRITERIA, "criterion", f"Use one of {', '.join(CRITERIA)}."),
            *self.expect(
                self.layer_rule in (None, *LAYER_RULES), "layer_rule", f"Use one of {', '.join(LAYER_RULES)}."
            ),
            *self.expect(self.kv_merge in KV_MERGES, "kv_merge", f"Use one of {', '.join(KV_MERGES)}."),
            *self.expect(
                self.ridges != () and min(self.ridges) > 0, "ridges", "Give positive shares such as 0.01 and 0.1."
            ),
            *self.expect(self.student_class in CLASSES, "student_class", f"Use one of {', '.join(CLASSES)}."),
            *self._step_problems(),
            *self._budget_problems(),
        ]
        for name in ("calibration_samples", "fitting_samples", "held_out_samples"):
            found += self.expect(getattr(self, name) >= 8, name, "Give at least 8; noise levels are stratified.")
        for name in ("budget_parameters_m", "budget_macs_g"):
            value = getattr(self, name)
            found += self.expect(value is None or value > 0, name, "Give a positive limit, or leave it out.")
            found += self.expect(value is None or "width" in self.steps, name, "Add the step width, which it decides.")
        if len(self.transformer_layers) == stages and stages:
            # 64 is only a stand-in: what the teacher decides is checked against it when it has been opened.
            free = self.student_class != CLASSES[0]  # depth 0 says that a stage of the teacher attends to nothing
            every = tuple(NONE if free and depth == 0 else SELF_CROSS for depth in self.transformer_layers)
            stand_in = replace(
                _STAND_IN,
                widths=self.widths,
                heads=(1,) * stages,
                layers_per_block=(1,) * stages,
                transformer_layers=(1,) * stages,
                down_attention=every,
                up_attention=(NONE, *every[1:]) if stages > 1 else every,
            )
            legal = self.goal(stand_in).problems()
            found += [Problem(what, where, remedy) for what, remedy in legal]
        return found

    def _budget_problems(self) -> list[Problem]:
        if self.budget is None:
            return []
        where = f"stage {self.name!r}"
        found = self.budget.problems(f"{where}, budget")
        if not {"width", "depth"} & set(self.steps):
            found.append(Problem(f"steps is {self.steps!r}", where, "Add width or depth, which the budget decides."))
        if self.budget_parameters_m is not None or self.budget_macs_g is not None:
            what = "budget stands beside budget_parameters_m or budget_macs_g"
            found.append(Problem(what, where, "Put all limits into budget, which chooses depths as well as widths."))
        if self.budget.allocation == GLOBAL and self.layer_rule == "laptop":
            what = "the global allocation cannot compare laptop's velocity errors with the criterion's scores"
            found.append(Problem(what, where, f"Use the allocation {ISOMORPHIC!r}, or another layer_rule."))
        return found

    def _step_problems(self) -> list[Problem]:
        known = f"Use some of {', '.join(STEPS)}."
        found = self.expect(set(self.steps) <= set(STEPS) and len(set(self.steps)) == len(self.steps), "steps", known)
        may = {*self.steps, PAIR}
        found += self.expect(
            set(self.compensated) <= may, "compensated", f"Use some of {', '.join((*self.steps, PAIR))}."
        )
        for first, then in (("depth", "width"), ("width", "separable"), ("multi_query", "qk_norm")):
            if first in self.steps and then in self.steps:
                in_order = self.steps.index(first) < self.steps.index(then)
                found += self.expect(in_order, "steps", f"Put {first} before {then}.")
        if self.student_class != CLASSES[0]:
            remedy = f"Use {' and '.join(PLAIN_STEPS)} alone: nothing else can be said in its config.json."
            found += self.expect(set(self.steps) <= set(PLAIN_STEPS), "steps", remedy)
        return found


def _attention(first: str, lowest: int, stages: int) -> tuple[str, ...]:
    """`first` in the first stage, self- and cross-attention in the lowest one that attends, in between cross-attention
    alone."""
    return tuple(
        SELF_CROSS if stage == lowest else NONE if stage > lowest else CROSS if stage else first
        for stage in range(stages)
    )


_STAND_IN = StudentSpec(
    widths=(64,),
    layers_per_block=(1,),
    transformer_layers=(1,),
    heads=(1,),
    down_attention=(SELF_CROSS,),
    up_attention=(SELF_CROSS,),
    cross_dim=64,
    size_dim=64,
)
