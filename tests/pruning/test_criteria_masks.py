"""Learned masks: distributions by hand, and searches whose answer is known."""

import pytest
import torch

from compress.pruning.calibration import predict
from compress.pruning.criteria.eco_diff import (
    EcoDiff,
    MaskSearch,
    gate_places,
    hard_concrete,
    learn_gates,
    open_probability,
    rollout,
)
from compress.pruning.criteria.layers import Choice, LayerTask, subsets
from compress.pruning.criteria.tiny_fusion import DepthMasks, DepthSearch, low_rank_updates, temperature, tiny_fusion
from compress.pruning.groups import find_groups
from compress.pruning.importance import Saliency, unit_scores
from tests.pruning.nets import STUDENT, TEACHER, batches, draft
from tests.pruning.toys import Stack, TwoLayers, hidden, question

QUICK = DepthSearch(steps=40, rank=1, lr_masks=0.2)


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def stack(*strengths):
    """A residual network of turned and scaled blocks, and a batch that asks for something near what it says."""
    torch.manual_seed(0)
    turn = torch.linalg.qr(torch.randn(4, 4)).Q
    net = Stack([strength * turn for strength in strengths])
    sample = question(torch.randn(16, 4), torch.zeros(16, 4))
    sample.velocity_bchw.copy_(predict(net, sample))
    return net, [sample]


def test_a_draw_is_a_legal_mask_with_a_gradient():
    choice = Choice("blocks", 4, subsets(4, 2))
    masks = DepthMasks([choice], chance(), torch.device("cpu"))
    seen = set()
    for _ in range(60):
        gates = masks.draw(1.0)
        assert list(gates) == [f"blocks.{layer}" for layer in range(4)]
        seen.add(tuple(layer for layer in range(4) if float(gates[f"blocks.{layer}"].detach()) > 0.5))
        assert {round(float(gate.detach()), 5) for gate in gates.values()} == {0.0, 1.0}
    assert seen == set(choice.legal)
    masks.draw(1.0)["blocks.0"].backward()
    assert float(masks.logits[0].grad.abs().sum()) > 0
    assert float(masks.logits[0].grad.sum()) == pytest.approx(0, abs=1e-6)


def test_the_temperature_falls_from_the_first_to_the_last():
    search = DepthSearch(steps=3, temperatures=(4.0, 1.0))
    assert [temperature(step, search) for step in range(3)] == pytest.approx([4, 2, 1])


def test_the_blocks_that_matter_stay():
    net, samples = stack(0.0, 1.0, 0.1, 0.8)
    task = LayerTask(lambda: net, samples, chance(), Saliency)
    before = predict(net, samples[0])
    assert tiny_fusion([Choice("blocks", 4, subsets(4, 2))], task, QUICK) == {"blocks": (1, 3)}
    assert torch.equal(predict(net, samples[0]), before)
    assert not any(p.requires_grad or p.grad is not None for p in net.parameters())


def test_only_legal_masks_are_learnt():
    net, samples = stack(0.0, 1.0, 0.1)
    task = LayerTask(lambda: net, samples, chance(), Saliency)
    assert tiny_fusion([Choice("blocks", 3, ((0,), (2,)))], task, QUICK) == {"blocks": (2,)}


def test_updates_start_as_the_identity_and_can_make_up_for_a_dropped_block():
    net, samples = stack(1.0, 0.0)
    before = predict(net, samples[0])
    with low_rank_updates([net.blocks[1]], 4, chance()) as tensors:
        assert torch.equal(predict(net, samples[0]), before)
        down, up = tensors
        up.data.copy_(torch.linalg.pinv(down.detach()))
        assert torch.allclose(predict(net, samples[0]), 2 * before, atol=1e-4)
    assert torch.equal(predict(net, samples[0]), before)


def test_gates_by_hand():
    logits, half = torch.tensor([-20.0, 0.0, 20.0]), torch.full((3,), 0.5)
    assert hard_concrete(logits, half).tolist() == pytest.approx([0.0, 0.5, 1.0])
    draws = hard_concrete(torch.tensor(0.3), torch.rand(20000, generator=chance()))
    assert float((draws > 0).float().mean()) == pytest.approx(float(open_probability(torch.tensor(0.3))), abs=0.01)
    assert float((draws == 1).float().mean()) > 0.1


def test_sampling_starts_at_the_samples_own_noise():
    """A network that says 0 leaves it as it is; one that says x walks off by Euler steps of a quarter."""
    sample = question(torch.randn(3, 2), torch.randn(3, 2))
    sigma = sample.sigma_b[:, None, None, None]
    eps = sample.x_bchw + (1 - sigma) * sample.velocity_bchw
    silent = TwoLayers(torch.zeros(2, 2), torch.zeros(2, 2))
    assert torch.equal(rollout(silent, sample, 4), eps)
    assert torch.allclose(rollout(TwoLayers(torch.eye(2), torch.eye(2)), sample, 4), eps * 0.75**4)


def test_gates_of_what_does_nothing_close():
    torch.manual_seed(0)
    net = TwoLayers(torch.randn(4, 3), torch.randn(3, 4))
    net.second.weight[:, 2] = 0
    samples = [question(torch.randn(8, 3), torch.randn(8, 3))]
    before = predict(net, samples[0])
    found = learn_gates(net, samples, [hidden(4)], chance(), MaskSearch(steps=60, start=1.0, weight_open=0.2))
    assert int(found.argmin()) == 2 and float(found[2]) < 0.3
    assert float(found[[0, 1, 3]].min()) > float(found[2]) + 0.2
    assert torch.equal(predict(net, samples[0]), before)


def test_without_steps_all_gates_are_as_likely_open():
    net = TwoLayers(torch.eye(3), torch.eye(3))
    samples = [question(torch.randn(2, 3), torch.randn(2, 3))]
    found = learn_gates(net, samples, [hidden(3)], chance(), MaskSearch(steps=0))
    assert torch.allclose(found, open_probability(torch.full((3,), 3.0)))


@pytest.mark.parametrize("spec", [TEACHER, STUDENT], ids=["teacher", "student"])
def test_every_unit_has_a_gate_where_it_is_read(spec):
    net, groups = draft(spec).unet, find_groups(spec)
    places = gate_places(net, groups)
    units = sum(group.units for group in groups)
    gated = torch.cat(list(places.values())).unique()
    assert gated[gated < units].tolist() == list(range(units))
    heads = places["mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"]
    assert torch.equal(heads, heads[::64].repeat_interleave(64)) and len(heads.unique()) == len(heads) // 64


def test_probabilities_become_scores_of_units():
    net = draft().unet
    criterion = EcoDiff(net, chance(), MaskSearch(steps=1, sampling_steps=1, lr=0.5))
    criterion.prepare(batches(1, 2))
    saliency = criterion.saliency()
    for group in criterion.groups:
        assert torch.allclose(unit_scores(group, saliency), criterion.open[group.name].double(), rtol=1e-5)
    assert len(torch.cat(list(criterion.open.values())).unique()) > 1
