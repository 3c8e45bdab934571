"""Scores of single weights, sums over groups and layers, and what is kept."""

from itertools import product

import pytest
import torch

from compress.pruning.groups import find_groups
from compress.pruning.importance import Saliency, layer_score, unit_scores
from compress.pruning.select import best_subset, cheapest_mix, keep_best, slices
from tests.pruning.nets import TEACHER, draft

FF = "mid_block.attentions.0.transformer_blocks.0.ff"


@pytest.fixture(scope="module")
def groups():
    return {group.name: group for group in find_groups(TEACHER)}


def test_the_score_of_a_neuron_is_the_sum_of_its_entries(groups):
    net = draft().unet
    saliency = Saliency.of({name: p.square() for name, p in net.named_parameters()})
    scores = unit_scores(groups[FF], saliency)
    proj, back = net.get_submodule(f"{FF}.net.0").proj, net.get_submodule(f"{FF}.net.2").weight
    inner = back.shape[1]
    by_hand = sum(part.square().sum() for part in (proj.weight[7], proj.weight[inner + 7], back[:, 7]))
    by_hand += proj.bias[7].square() + proj.bias[inner + 7].square()
    assert float(scores[7]) == pytest.approx(float(by_hand), rel=1e-5)


def test_a_layer_scores_what_lies_under_its_name():
    saliency = Saliency.of(
        {"a.1.weight": torch.full((2, 3), 2.0), "a.1.bias": torch.ones(2), "a.10.weight": torch.ones(9)}
    )
    assert layer_score("a.1", saliency) == 14
    assert layer_score("b", saliency) == 0


def test_scores_add_up_along_each_axis():
    saliency = Saliency()
    for _ in range(2):
        saliency.add("w", torch.arange(8.0).reshape(2, 2, 2))
    saliency.add_along("w", 1, torch.tensor([100.0, 0.0]))
    assert saliency.along["w", 0].tolist() == [12, 44] and saliency.along["w", 1].tolist() == [120, 36]
    assert ("w", 2) not in saliency.along


def test_what_has_no_score_scores_nothing(groups):
    assert unit_scores(groups[FF], Saliency()).tolist() == [0] * 4 * 192


def test_the_best_are_kept_in_order_and_ties_go_to_the_earlier():
    scores = torch.tensor([1.0, 5.0, 5.0, 0.0, 5.0])
    assert keep_best(scores, 2).tolist() == [1, 2]
    assert keep_best(scores, 4).tolist() == [0, 1, 2, 4]


def test_each_norm_group_keeps_the_same_number():
    scores = torch.tensor([9.0, 8.0, 7.0, 6.0, 1.0, 2.0, 3.0, 4.0])
    assert keep_best(scores, 4, norm_groups=2).tolist() == [0, 1, 6, 7]
    assert keep_best(scores, 4).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("count", [0, 6])
def test_keeping_none_or_too_many_is_an_error(count):
    with pytest.raises(ValueError, match="cannot keep"):
        keep_best(torch.ones(5), count)


def test_layers_are_chosen_among_legal_subsets():
    scores = [1.0, 9.0, 5.0]
    assert best_subset(scores, 2) == (1, 2)
    assert best_subset(scores, 2, [(0, 1), (0, 2)]) == (0, 1)
    with pytest.raises(ValueError, match="no way"):
        best_subset(scores, 2, [])


def test_slices_of_a_concatenation_hold_both_parts(groups):
    kept = {group.name: torch.arange(group.units)[::2] for group in groups.values()}
    places = slices(groups.values(), kept)
    assert places["up_blocks.1.resnets.1.norm1.weight", 0].tolist() == list(range(0, 128, 2))


def test_the_cheapest_mix_is_the_best_of_all_mixes():
    generator = torch.Generator().manual_seed(0)
    slots = [
        [(float(torch.rand((), generator=generator)), size * (slot + 3)) for size in range(4)] for slot in range(4)
    ]
    for capacity in range(0, 60, 7):
        found = cheapest_mix(slots, capacity)
        costs = {
            mix: sum(slots[slot][index][0] for slot, index in enumerate(mix))
            for mix in product(range(4), repeat=4)
            if sum(slots[slot][index][1] for slot, index in enumerate(mix)) <= capacity
        }
        assert costs[tuple(found)] == pytest.approx(min(costs.values()))


def test_a_limit_that_nothing_meets_names_the_least():
    with pytest.raises(ValueError, match="smallest mix has size 5, the limit is 4"):
        cheapest_mix([[(0.0, 3), (1.0, 2)], [(0.0, 3)]], 4)
