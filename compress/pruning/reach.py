"""Whether a student can be made of a teacher, told from their specs before any weight is read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from students.spec import HEAD_WIDTH, NONE, StudentSpec

Finding = tuple[str, str]  # (what, remedy)


def unreachable(goal: StudentSpec, teacher: StudentSpec) -> list[Finding]:
    """(what, remedy) for everything in the goal that no operator can make from this teacher, or that no config.json of
    the goal's class can say. Both have the same number of stages."""
    return [
        *_growing(goal, teacher),
        *_parted(goal, teacher),
        *_heads(goal, teacher),
        *_depths(goal, teacher),
        *goal.unexpressed(),
    ]


def _growing(goal: StudentSpec, teacher: StudentSpec) -> Iterator[Finding]:
    for name in ("widths", "layers_per_block"):
        for stage, (new, old) in enumerate(zip(getattr(goal, name), getattr(teacher, name), strict=True)):
            if new > old:
                yield f"{name} of stage {stage} is {new}, the teacher has {old}", f"Use at most {old}."


def _parted(goal: StudentSpec, teacher: StudentSpec) -> Iterator[Finding]:
    stages = zip(pairwise(teacher.widths), pairwise(goal.widths), strict=True)
    for stage, ((old, old_below), (new, new_below)) in enumerate(stages):
        if old == old_below and new != new_below:
            both = f"widths {new} and {new_below} part stages {stage} and {stage + 1}"
            yield f"{both}, which are one stream in the teacher", f"Give both the same width, at most {old}."


def _heads(goal: StudentSpec, teacher: StudentSpec) -> Iterator[Finding]:
    for stage in range(goal.stages):
        had, wanted = (spec.widths[stage] // spec.heads[stage] for spec in (teacher, goal))
        fewer = goal.heads[stage] != teacher.heads[stage]
        if fewer and had != wanted:
            what = f"heads of stage {stage} are {wanted} wide, the teacher's {had}"
            remedy = f"A DreamLiteUNetModel has heads of {HEAD_WIDTH}: make a UNet2DConditionModel, which keeps its "
            yield what, f"{remedy}{teacher.heads[stage]} heads."
        elif goal.heads_fixed and had != wanted and (teacher.kv_heads is not None or teacher.qk_norm):
            what = f"heads of stage {stage} are to shrink from {had} to {wanted}, and share or norm their keys"
            yield what, "Give fewer heads, each as wide as the teacher's."


def _depths(goal: StudentSpec, teacher: StudentSpec) -> Iterator[Finding]:
    for stage in range(goal.stages):
        new, old = goal.transformer_layers[stage], teacher.transformer_layers[stage]
        if new > old and (goal.down_attention[stage], goal.up_attention[stage]) == (NONE, NONE):
            yield f"transformer_layers of stage {stage} is {new}, the teacher has {old}", f"Use at most {old}."
        for side in ("down", "up"):
            had, wanted = teacher.depths(side, stage), goal.depths(side, stage)
            if not had or not wanted:
                continue  # no transformer, or a new one
            where = f"stage {stage} on the way {side}"
            if len(wanted) == len(had) and any(new > old for new, old in zip(wanted, had, strict=True)):
                yield f"transformer_layers of {where} are {wanted}, the teacher has {had}", "Use at most as many."
            elif len(wanted) != len(had) and len(set(wanted)) > 1:
                yield f"{where} loses layers and is to keep depths {wanted}", "Give one depth for all its layers."
            elif len(wanted) != len(had) and wanted[0] > min(had):
                yield f"transformer_layers of {where} is {wanted[0]}, the teacher has {had}", f"Use at most {min(had)}."
    if goal.middle_depth > teacher.middle_depth:
        what = f"the middle block is to have {goal.middle_depth} transformer blocks, the teacher has"
        yield f"{what} {teacher.middle_depth}", f"Use at most {teacher.middle_depth} in the lowest stage."
