"""Criteria: worked out by hand where that can be, together what they are alone, blind to order and to the dead."""

import math

import pytest
import torch

from compress.pruning.calibration import predict
from compress.pruning.criteria import CRITERIA, collect, gather, obs_diff
from compress.pruning.criteria.gradients import DiffPruning
from compress.pruning.criteria.obs_diff import (
    ObsDiff,
    column_saliency,
    inverse_diagonal,
    make_up,
    share_out,
    shrink,
    step_weights,
)
from compress.pruning.groups import find_groups
from compress.pruning.importance import unit_scores
from tests.pruning.nets import STUDENT, TEACHER, batches, draft
from tests.pruning.toys import TwoLayers, hidden, question

FF = "mid_block.attentions.0.transformer_blocks.0.ff"
GATHERED = tuple(name for name in CRITERIA if name != "eco_diff")  # which learns in a loop of its own
SHARED = ("activation", "taylor", "fisher", "diff_pruning", "obs_diff")


def scores(name, net, samples, seed=0):
    return collect(net, samples, [name], torch.Generator().manual_seed(seed))[name]


def toy(units=5, seed=0, size=4):
    """A random two-layer network and two batches for it."""
    torch.manual_seed(seed)
    net = TwoLayers(torch.randn(units, 3), torch.randn(2, units))
    return net, [question(torch.randn(size, 3), torch.randn(size, 2)) for _ in range(2)]


@pytest.fixture(scope="module", params=[TEACHER, STUDENT], ids=["teacher", "student"])
def everything(request):
    """(network, all scores from one pass), with what the network was before."""
    net = draft(request.param).unet
    before = {k: v.clone() for k, v in net.state_dict().items()}
    return net, before, collect(net, batches(1, 2), GATHERED, torch.Generator().manual_seed(0))


def test_scores_have_the_shapes_of_the_network_and_leave_it_as_it_was(everything):
    net, before, found = everything
    shapes = {name: p.shape for name, p in net.named_parameters()}
    assert set(found) == set(GATHERED)
    for saliency in found.values():
        assert saliency.along
        for (parameter, axis), along in saliency.along.items():
            assert along.shape == shapes[parameter][axis : axis + 1] and bool((along >= 0).all())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("name", SHARED)
def test_a_criterion_says_the_same_alone(everything, name):
    net, _, found = everything
    alone = scores(name, net, batches(1, 2))
    assert alone.along.keys() == found[name].along.keys()
    for place, along in alone.along.items():
        # The gradient of a batch's mean is the mean of its samples' gradients but for float32's rounding.
        assert torch.allclose(along, found[name].along[place], rtol=1e-3, atol=1e-5 * float(along.max() + 1e-30))


def test_all_together_take_as_many_forwards_as_the_dearest_alone():
    counts = {}
    for names in (*[(name,) for name in SHARED], SHARED):
        net, samples = toy()
        collect(net, samples, names, torch.Generator())
        counts[names] = net.forwards
    assert counts[SHARED] == max(counts[(name,)] for name in SHARED) == 8
    assert counts[("taylor",)] == counts[("obs_diff",)] == 2


@pytest.mark.parametrize("name", ["magnitude", *SHARED])
def test_scores_follow_their_channels(name):
    net, samples = toy()
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = TwoLayers(net.first.weight[order, :, 0, 0], net.second.weight[:, order, 0, 0])
    expected = unit_scores(hidden(5), scores(name, net, samples))[order]
    assert torch.allclose(unit_scores(hidden(5), scores(name, shuffled, samples)), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["magnitude", *SHARED])
def test_a_dead_channel_is_worth_nothing(name):
    net, samples = toy()
    net.first.weight[2], net.second.weight[:, 2] = 0, 0
    found = unit_scores(hidden(5), scores(name, net, samples))
    assert float(found[2]) == 0 and bool((found[[0, 1, 3, 4]] > 0).all())


@pytest.mark.parametrize("name", ["activation", "obs_diff"])
def test_an_input_that_is_always_zero_is_worth_nothing(name):
    net, samples = toy()
    net.first.weight[2] = 0
    assert float(scores(name, net, samples).along["second.weight", 1][2]) == 0


@pytest.mark.slow
def test_a_dead_neuron_of_a_transformer_is_worth_nothing():
    net = draft().unet
    net.get_submodule(f"{FF}.net.0").proj.weight[[7, 768 + 7]] = 0
    net.get_submodule(f"{FF}.net.0").proj.bias[[7, 768 + 7]] = 0
    net.get_submodule(f"{FF}.net.2").weight[:, 7] = 0
    (group,) = [group for group in find_groups(TEACHER) if group.name == FF]
    for saliency in collect(net, batches(1, 2), SHARED, torch.Generator()).values():
        found = unit_scores(group, saliency)
        assert int(found.argmin()) == 7 and float(found[7]) == 0


def one_weight(w=2.0):
    """velocity = w x, asked of x = 1 and 3 with true velocities 1 and 8: gaps 1 and -2, gradients 2 and -12."""
    return TwoLayers(torch.tensor([[w]]), torch.tensor([[1.0]])), [
        question(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [8.0]]))
    ]


def test_by_hand():
    net, samples = one_weight()
    found = {
        name: float(s.along["first.weight", 0]) for name, s in collect(net, samples, SHARED[:4], _chance()).items()
    }
    assert found["activation"] == pytest.approx(2**2 * (1 + 9) / 2)
    assert found["taylor"] == pytest.approx(2 * abs((2 - 12) / 2))
    assert found["fisher"] == pytest.approx(((2 * 2) ** 2 + (2 * 12) ** 2) / 2)
    assert found["diff_pruning"] == pytest.approx(2 * abs(2 - 12) / 2)


@pytest.mark.parametrize(("share", "gradient", "left_out"), [(0.0, 2 - 12, []), (0.5, -12, [0.9])])
def test_diff_pruning_leaves_out_levels_of_little_loss(share, gradient, left_out):
    """Losses 4 and 1 in order of noise: with a threshold of a half only the first counts."""
    net, _ = one_weight()
    samples = [question(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [8.0]]), [0.9, 0.2])]
    criterion = DiffPruning(net, _chance(), loss_share=share)
    gather(net, samples, [criterion])
    assert float(criterion.saliency().along["first.weight", 0]) == pytest.approx(2 * abs(gradient) / 2)
    assert criterion.left_out == pytest.approx(left_out)


def test_taylor_predicts_what_removing_a_weight_costs():
    """To first order: shrinking a weight by a hundredth costs a hundredth of its score."""
    net, samples = toy(1, seed=1)
    score = float(scores("taylor", net, samples[:1]).along["first.weight", 1][0])

    def loss():
        return float((predict(net, samples[0]) - samples[0].velocity_bchw).double().square().mean())

    before = loss()
    net.first.weight[0, 0] *= 0.99
    assert abs(loss() - before) == pytest.approx(0.01 * score, rel=0.05)


def test_obs_with_a_diagonal_hessian_is_half_the_energy():
    diagonal = torch.tensor([2.0, 0.5, 4.0], dtype=torch.float64)
    weight = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    found = column_saliency(weight.square().sum(0), inverse_diagonal(shrink(diagonal.diag(), 1)))
    assert torch.allclose(found, weight.square().sum(0) * diagonal / 2)


def test_obs_is_the_least_error_of_removing_a_column():
    torch.manual_seed(0)
    x = torch.randn(50, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    weight, hessian = torch.randn(3, 6, dtype=torch.float64), 2 * x.T @ x / 50
    found = column_saliency(weight.square().sum(0), inverse_diagonal(hessian))
    for column in range(6):
        kept = torch.tensor([other for other in range(6) if other != column])
        best = torch.linalg.lstsq(x[:, kept], x @ weight.T).solution.T
        assert torch.allclose(weight @ make_up(hessian, kept).T, best)
        gap = (x @ weight.T - x[:, kept] @ best.T).square().sum() / 50
        assert float(found[column]) == pytest.approx(float(gap), rel=0.01)


def test_obs_lets_a_twin_take_over():
    """Two channels that always agree: either is worth next to nothing, and the one that stays does the work of both."""
    net, samples = toy(4, size=500)
    net.first.weight[1] = net.first.weight[0]
    criterion = ObsDiff(net, _chance())
    gather(net, samples, [criterion])
    found = criterion.saliency().along["second.weight", 1]
    energy = net.second.weight.square().sum((0, 2, 3)) * criterion.hessian("second").diagonal() / 2
    assert bool((found[:2] < 0.05 * energy[:2]).all()) and bool((found <= 1.02 * energy).all())
    kept = torch.tensor([0, 2, 3])
    refit = criterion.refit("second.weight", kept)
    assert refit.error_refitted < 1e-3 < refit.error_sliced
    assert torch.allclose(refit.weight[:, 0], net.second.weight[:, :2].sum(1), rtol=0.1)
    assert criterion.refit("second.bias", kept) is None


def test_few_positions_leave_obs_with_what_activation_sees():
    """One position says nothing about correlations: the score is w^2 times the energy of the input."""
    torch.manual_seed(0)
    x = torch.randn(1, 400, dtype=torch.float64)
    hessian = x.T @ x
    found = inverse_diagonal(shrink(hessian, 1))
    assert torch.allclose(1 / found, hessian.diagonal(), rtol=0.01)
    assert make_up(shrink(hessian, 1), torch.arange(200))[:, 200:].abs().mean() < 0.01


def test_early_steps_weigh_more():
    found = step_weights(torch.tensor([0.0, 0.5, 1.0]))
    assert found[0] == 1 and found[2] == pytest.approx(2)
    assert float(found[1]) == pytest.approx(1 + math.log(500.5) / math.log(1000), rel=1e-6)


def test_layers_fed_alike_share_a_hessian():
    net = draft().unet
    criterion = ObsDiff(net, _chance())
    gather(net, batches(1, 2), [criterion])
    block = "mid_block.attentions.0.transformer_blocks.0"
    assert criterion.same[f"{block}.attn1.to_k"] == criterion.same[f"{block}.attn1.to_v"] == f"{block}.attn1.to_q"
    assert criterion.same[f"{block}.attn2.to_v"] == f"{block}.attn2.to_k"
    assert f"{block}.attn2.to_k" not in criterion.same and f"{block}.ff.net.2" not in criterion.same


@pytest.mark.slow
def test_a_frugal_pass_in_rounds_scores_alike(monkeypatch):
    net, samples = draft().unet, batches(2, 2)
    criteria = [ObsDiff(net, _chance()) for _ in range(2)]
    gather(net, samples, criteria[:1])
    monkeypatch.setattr(obs_diff, "MOST_ENTRIES", 1 << 16)
    criteria[1].frugal = True
    gather(net, samples, criteria[1:])
    assert criteria[1].rounds > 1 and not criteria[1].sums
    once, rounds = (criterion.saliency().along for criterion in criteria)
    assert set(once) == set(rounds)
    assert all(torch.allclose(once[place], rounds[place], rtol=1e-3) for place in once)


def test_names_are_shared_out_in_order_up_to_a_size():
    assert share_out({"a": 2, "b": 2, "c": 9, "d": 1}, 4) == [{"a", "b"}, {"c"}, {"d"}]
    assert share_out({"a": 1}, 4) == [{"a"}]


def test_random_depends_on_its_seed_alone():
    net, samples = toy()
    first, again, other = (scores("random", net, samples, seed).along["first.weight", 0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def _chance():
    return torch.Generator().manual_seed(0)
