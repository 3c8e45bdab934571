"""How stages share a cut: uniformly, or by scores over everything or over each kind of unit."""

import pytest

from compress.config.budget import ALLOCATIONS, GLOBAL, ISOMORPHIC, UNIFORM, Budget
from compress.pruning.budget import Knob, plan, price
from compress.pruning.budget.allocation import deviation, path_of, point_of
from compress.pruning.budget.lattice import BLOCKS, LAYERS, WIDTHS
from compress.pruning.budget.scores import stage_scores
from compress.pruning.surgery.base import transformer_blocks
from tests.pruning.nets import TEACHER, bench, draft
from tests.pruning.test_budget import FORWARD, LARGE

FIRST = Knob(WIDTHS, (0,), (64, 128))
SECOND = Knob(WIDTHS, (1,), (64, 128, 192, 256))
BLOCK = Knob(BLOCKS, (1,), (1, 2, 3, 4))
LAYER = Knob(LAYERS, (0,), (1, 2))
KNOBS = (FIRST, SECOND, BLOCK, LAYER)
SCORES = {
    (WIDTHS, 0): [9.0, 8.0],
    (WIDTHS, 1): [7.0, 3.0, 2.0, 1.0],
    (BLOCKS, 1): [6.0, 5.0, 4.0, 0.5],
}


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_a_path_leads_from_everything_to_nothing_and_never_back(allocation):
    path = path_of(allocation, KNOBS, SCORES)
    steps = [path(2 - 0.05 * step) for step in range(41)]
    assert steps[0] == (1.0,) * 4 and steps[-1] == (0.0,) * 4
    for earlier, later in zip(steps, steps[1:], strict=False):
        assert all(new <= old for new, old in zip(later, earlier, strict=True))


def test_uniform_takes_one_ratio_of_widths_and_blocks_and_leaves_the_rest():
    assert path_of(UNIFORM, KNOBS, SCORES)(1.5) == (0.5, 0.5, 0.5, 1.0)
    assert path_of(GLOBAL, KNOBS, None)(1.5) == (0.5, 0.5, 0.5, 1.0)


def test_global_ranks_all_units_together():
    """Half of ten units stay: 9 and 8 of the first stage, 7 of the second, 6 and 5 of the blocks."""
    assert path_of(GLOBAL, KNOBS, SCORES)(1.5) == (1.0, 0.25, 0.5, 1.0)


def test_isomorphic_ranks_each_kind_apart():
    """Half of six channels: 9, 8 and 7; half of four blocks: 6 and 5. Scaling the blocks' scores changes nothing."""
    wanted = (1.0, 0.25, 0.5, 1.0)
    assert path_of(ISOMORPHIC, KNOBS, SCORES)(1.5) == wanted
    scaled = {**SCORES, (BLOCKS, 1): [1000 * score for score in SCORES[BLOCKS, 1]]}
    assert path_of(ISOMORPHIC, KNOBS, scaled)(1.5) == wanted
    assert path_of(GLOBAL, KNOBS, scaled)(1.5) == (0.5, 0.0, 1.0, 1.0)


def test_the_nearest_point_and_what_it_is_off():
    assert point_of(KNOBS, (0.8, 0.6, 0.0, 1.0)) == (1, 1, 0, 1)
    assert deviation(KNOBS, (1, 3, 3, 1), (1.0,) * 4) == 0
    halved = deviation(KNOBS, (0, 3, 3, 1), (1.0,) * 4)
    assert halved == pytest.approx(deviation(KNOBS, (1, 3, 1, 1), (1.0,) * 4))


def test_the_stage_with_the_larger_scores_keeps_more():
    whole = price(LARGE, FORWARD, "8gen3").parameters_m

    def widths(loud):
        scores = {
            (WIDTHS, stage): [(10.0 if stage == loud else 1.0) * (1 + unit) for unit in range(width)]
            for stage, width in enumerate(LARGE.widths)
        }
        return plan(LARGE, Budget(parameters_m=0.4 * whole, allocation=GLOBAL), FORWARD, scores=scores).spec.widths

    (_, second, third), (_, other_second, other_third) = widths(1), widths(2)
    assert second / third > other_second / other_third and second > other_second


@pytest.mark.slow
def test_scores_of_stages_are_the_criterions_rank_by_rank():
    start = draft()
    saliency = bench().saliency(start)
    found = stage_scores(TEACHER, saliency, transformer_blocks(start.unet))
    assert {key: len(units) for key, units in found.items()} == {(WIDTHS, 0): 64, (WIDTHS, 1): 192, (BLOCKS, 1): 2}
    assert all(units == sorted(units, reverse=True) for units in found.values())
    total = sum(saliency.layer(name) for name in transformer_blocks(start.unet))
    assert sum(found[BLOCKS, 1]) == pytest.approx(total)
