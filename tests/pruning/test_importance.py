"""Scores of single weights, sums over groups, and what is kept."""

import pytest
import torch

from compress.pruning.groups import find_groups
from compress.pruning.importance import CRITERIA, input_energy, layer_score, unit_scores
from compress.pruning.select import best_subset, keep_best, slices
from tests.pruning.nets import STUDENT, TEACHER, batches, draft

FF = "mid_block.attentions.0.transformer_blocks.0.ff"


@pytest.fixture(scope="module")
def net():
    return draft().unet


@pytest.fixture(scope="module")
def groups():
    return {group.name: group for group in find_groups(TEACHER)}


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("spec", [TEACHER, STUDENT], ids=["teacher", "student"])
def test_a_criterion_scores_every_weight_and_leaves_the_network_as_it_was(spec, name):
    net = draft(spec).unet
    before = {k: v.clone() for k, v in net.state_dict().items()}
    saliency = CRITERIA[name](net, batches(1, 2), torch.Generator().manual_seed(0))
    assert {k: v.shape for k, v in saliency.items()} == {k: p.shape for k, p in net.named_parameters()}
    assert all(bool((scores >= 0).all()) for scores in saliency.values())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not any(p.requires_grad for p in net.parameters())


def test_magnitude_of_a_neuron_is_the_sum_of_its_squares(net, groups):
    saliency = CRITERIA["magnitude"](net, [], torch.Generator())
    scores = unit_scores(groups[FF], saliency)
    proj, back = net.get_submodule(f"{FF}.net.0").proj.weight, net.get_submodule(f"{FF}.net.2").weight
    inner = back.shape[1]
    by_hand = proj[7].square().sum() + proj[inner + 7].square().sum() + back[:, 7].square().sum()
    assert float(scores[7]) == pytest.approx(float(by_hand), rel=1e-5)
    assert layer_score(FF, saliency) == pytest.approx(float(scores.sum()), rel=1e-5)


def test_activation_is_the_energy_of_a_neuron_s_contribution(net):
    question = batches(1, 2)
    name = f"{FF}.net.2"
    energy = input_energy(net, {name: net.get_submodule(name)}, question)[name]
    saliency = CRITERIA["activation"](net, question, torch.Generator())[f"{name}.weight"]
    assert torch.allclose(saliency[:, 7], net.get_submodule(name).weight[:, 7].square() * energy[7])


def test_a_neuron_that_does_nothing_scores_least_with_every_criterion_that_looks(groups):
    net = draft().unet
    net.get_submodule(f"{FF}.net.0").proj.weight[[7, 768 + 7]] = 0
    net.get_submodule(f"{FF}.net.0").proj.bias[[7, 768 + 7]] = 0
    net.get_submodule(f"{FF}.net.2").weight[:, 7] = 0
    for name in ("magnitude", "activation", "taylor", "fisher"):
        scores = unit_scores(groups[FF], CRITERIA[name](net, batches(1, 2), torch.Generator()))
        assert int(scores.argmin()) == 7 and float(scores[7]) == 0


def test_taylor_predicts_what_removing_a_weight_costs(net):
    """To first order: halving the step between prediction and truth as the weight shrinks less."""
    question = batches(1, 4)
    saliency = CRITERIA["taylor"](net, question, torch.Generator())["conv_out.weight"]
    place = tuple(int(i) for i in torch.nonzero(saliency == saliency.max())[0])

    def loss(share):
        changed = draft().unet
        changed.conv_out.weight[place] *= 1 - share
        from compress.pruning.calibration import predict

        return float((predict(changed, question[0]) - question[0].velocity_bchw).double().square().mean())

    assert abs(loss(1e-2) - loss(0)) == pytest.approx(1e-2 * float(saliency[place]), rel=0.05)


def test_random_depends_on_its_seed_alone(net):
    def draw(seed):
        return CRITERIA["random"](net, [], torch.Generator().manual_seed(seed))["conv_in.weight"]

    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))


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
