"""The goal of a prune stage that is given a budget instead of sizes."""

from __future__ import annotations

from dataclasses import replace

from compress.config.prune import PruneConfig
from compress.pruning.budget.allocation import Scores
from compress.pruning.budget.lattice import BLOCKS, LAYERS, NEURONS, WIDTHS
from compress.pruning.budget.price import Forward
from compress.pruning.budget.search import Planned, plan
from compress.pruning.evolution import target
from students.spec import StudentSpec

# Which sizes a step is needed for: without it they stay the teacher's.
MOVES = {"width": (WIDTHS,), "depth": (BLOCKS, LAYERS), "feed_forward": (NEURONS,)}


def largest_of(config: PruneConfig, teacher: StudentSpec) -> StudentSpec:
    """The student with all of the config's operators and the teacher's widths and depths."""
    stages = len(teacher.widths)
    sized = replace(config, widths=teacher.widths, transformer_layers=(1,) * stages)
    goal = replace(sized.goal(teacher), layers_per_block=teacher.layers_per_block)
    if goal.plain:
        goal = replace(
            goal,
            transformer_layers=teacher.transformer_layers,
            down_depths=teacher.down_depths,
            up_depths=teacher.up_depths,
        )
    else:
        goal = replace(goal, transformer_layers=_common_depths(teacher))
    return target(teacher, goal, config.steps)


def _common_depths(teacher: StudentSpec) -> tuple[int, ...]:
    """Transformer blocks that every layer of a stage has, the middle block counted with the lowest."""
    found = []
    for stage, deepest in enumerate(teacher.transformer_layers):
        depths = [*teacher.depths("down", stage), *teacher.depths("up", stage)]
        if stage == teacher.stages - 1 and teacher.middle_depth:
            depths.append(teacher.middle_depth)
        found.append(min(depths, default=deepest))
    return tuple(found)


def goal_within(
    config: PruneConfig, teacher: StudentSpec, height: int, width: int, tokens: int, scores: Scores | None = None
) -> Planned:
    """The student of the config's operators that its budget leaves; MACs and latency are of a forward on a pair of
    latents of height x width. UserError where there is none."""
    assert config.budget is not None
    fixed = [field for step, fields in MOVES.items() if step not in config.steps for field in fields]
    forward = Forward(height, 2 * width, tokens)
    return plan(largest_of(config, teacher), config.budget, forward, teacher.widths, fixed, scores)
