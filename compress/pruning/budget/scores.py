"""From a criterion's scores of channels and transformer blocks to scores of the units that a plan counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from compress.pruning.budget.allocation import Scores
from compress.pruning.budget.lattice import BLOCKS, WIDTHS, tied
from compress.pruning.groups import CHANNEL, Group, find_groups
from compress.pruning.importance import Saliency, unit_scores
from compress.pruning.surgery.base import stage_of
from students.spec import StudentSpec


def stage_scores(
    spec: StudentSpec, saliency: Saliency, blocks: Iterable[str], block_score: Callable[[str], float] | None = None
) -> Scores:
    """Scores for `plan` of a network of `spec` whose transformer blocks have these names; `block_score` gives those of
    blocks where they are not the criterion's (LAPTOP's errors of skipped blocks).

    A stage that keeps n channels keeps the best n of each of its groups, so its i-th unit scores what the i-th best
    channels of all its groups do together; likewise for the transformer blocks of its stacks. With a criterion that
    adds up (Taylor, Fisher), both are the change of the loss that the cut would make, and can be compared.
    """
    block_score = block_score or saliency.layer
    widths: dict[int, list[list[float]]] = {}
    for group in find_groups(spec):
        stage = _stage(group.name, spec)
        if stage is not None and _spans(group, spec.widths[stage]):
            widths.setdefault(stage, []).append(unit_scores(group, saliency).tolist())
    stacks: dict[str, list[float]] = {}
    for name in blocks:
        stacks.setdefault(name.rpartition(".")[0], []).append(block_score(name))
    depths: dict[int, list[list[float]]] = {}
    for name, scores in stacks.items():
        stage = _stage(name, spec)
        assert stage is not None, f"{name} is in no stage"
        depths.setdefault(stage, []).append(scores)
    found = {(BLOCKS, stage): _ranked(lists) for stage, lists in depths.items()}
    for run in tied(spec.widths):
        if lists := [scores for stage in run for scores in widths.get(stage, [])]:
            found[WIDTHS, run[0]] = _ranked(lists)
    return found


def _stage(name: str, spec: StudentSpec) -> int | None:
    """The stage whose width a module's channels have; None for time and text embeddings."""
    if name.startswith("mid_block"):
        return spec.stages - 1
    if name == "conv_in":
        return 0
    place = stage_of(name, spec.stages)
    return None if place is None else place[1]


def _spans(group: Group, width: int) -> bool:
    return group.kind == CHANNEL and group.units == width


def _ranked(lists: Sequence[Sequence[float]]) -> list[float]:
    """The sums of the best, of the second best, and so on."""
    ordered = [sorted(scores, reverse=True) for scores in lists]
    return [sum(rank) for rank in zip(*ordered, strict=True)]
