"""Limits and objectives on the student that a recipe's prune stages lead to, from its spec: no weights are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from compress.config.budget import LIMITS
from compress.config.prune import PruneConfig
from compress.errors import UserError
from compress.latency import CHIPS
from compress.plan import find_teacher
from compress.recipe import Recipe, TeacherRef
from compress.sweep.definition import Constraint, Objective

LABELS = {
    "parameters_m": "parameters (M)",
    "macs_g": "MACs (G)",
    "size_mb_w8_padded": "W8 weights padded (MB)",
    "latency_ms": "latency (ms, estimated)",
}


def student_limit(quantity: str, at_most: float, stage: str = "prune", chip: str = "8gen3") -> Constraint:
    """At most this much of one of `compress.config.budget.LIMITS`; MACs and latency of one forward on a pair, the
    latency as estimated for `chip`. UserError for an unknown quantity or chip, and for a stage that does not prune."""
    value = student_quantity(quantity, stage, chip)
    return Constraint(label=LABELS[quantity], at_most=at_most, value=value)


def student_objective(
    quantity: str, stage: str = "prune", chip: str = "8gen3", worst: float | None = None
) -> Objective:
    """As little as possible of one of these quantities; UserError as for a limit."""
    value = student_quantity(quantity, stage, chip)
    return Objective(stage=stage, metric=quantity, label=LABELS[quantity], worst=worst, value=value)


def student_quantity(quantity: str, stage: str, chip: str) -> Callable[[Recipe], float]:
    """Tells one quantity of the student that a recipe's prune stages up to `stage` lead to."""
    for name, value, known in (("quantity", quantity, LIMITS), ("chip", chip, tuple(CHIPS))):
        if value not in known:
            raise UserError.of(f"{name} is {value!r}", "constraint", f"Use one of {', '.join(known)}.")

    def value_of(recipe: Recipe) -> float:
        index = recipe.index(stage, "constraint")
        path = [config for config in recipe.stages[: index + 1] if isinstance(config, PruneConfig)]
        if recipe.stages[index] not in path or not isinstance(recipe.teacher, TeacherRef):
            what = f"stage {stage!r} of {recipe.name!r} prunes no teacher of ours"
            raise UserError.of(what, "constraint", "Name a prune stage of a recipe with a teacher.")
        return price_of(path, teacher_folder(recipe.teacher), chip)[quantity]

    return value_of


def price_of(path: Sequence[PruneConfig], teacher: Path, chip: str) -> dict[str, float]:
    """All four quantities of the student that prune stages make of the teacher in this folder, one after the other."""
    from compress.judge import config_of, spec_of
    from compress.pruning.budget import Forward, price
    from compress.pruning.evolution import target
    from compress.stages.prune import reach

    student, side = spec_of(teacher), config_of(teacher, "unet")["sample_size"]
    tokens = config_of(teacher, "text_encoder")["max_position_embeddings"]
    for config in path:
        student = target(student, reach(config, student, side, side, tokens), config.steps)
    found = price(student, Forward(side, side if student.plain else 2 * side, tokens), chip)
    return {name: getattr(found, name) for name in LIMITS}


@lru_cache
def teacher_folder(teacher: TeacherRef) -> Path:
    """Where the teacher lies, verified once, since a search asks for it again and again."""
    folder, _ = find_teacher(Recipe(name="limit", description="", teacher=teacher, stages=()))
    assert folder is not None
    return folder
