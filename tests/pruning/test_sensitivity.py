"""Pruning one group at a time: what is worked out by hand, what changes nothing, and that nothing is left behind."""

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch

from compress.pruning.calibration import predictions
from compress.pruning.groups import CHANNEL, HEAD, NEURON, Group, Member, find_groups
from compress.pruning.importance import Saliency, unit_scores
from compress.pruning.sensitivity import lowest, sensitivity, without
from compress.pruning.surgery.narrow import FEED_FORWARD
from tests.pruning.nets import STUDENT, TEACHER, batches, bench, draft, outputs
from tests.pruning.toys import TwoLayers, question


def bits(unet):
    return {name: tensor.clone().view(torch.int32) for name, tensor in unet.state_dict().items()}


def assert_same_bits(unet, before):
    assert all(torch.equal(tensor.view(torch.int32), before[name]) for name, tensor in unet.state_dict().items())


def squared(unet):
    return Saliency.of({name: p.square() for name, p in unet.named_parameters()})


def channels(name, *units):
    index = torch.tensor(units)[:, None]
    return Group(name, CHANNEL, len(units), (Member("first.weight", 0, index), Member("second.weight", 1, index)))


@pytest.fixture
def toy():
    """Channels 0 and 1 pass x on, weighted 1 and 2; nothing reads channels 2 and 3."""
    second = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]])
    return TwoLayers(torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 3.0]]), second)


def test_a_dead_group_costs_nothing_and_a_live_one_what_it_carries(toy):
    asked = [question(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.zeros(2, 2))]
    groups = [channels("live", 0, 1), channels("dead", 2, 3)]
    rows = sensitivity(toy, groups, squared(toy), (0.5, 1.0), asked)
    # Channel 0 has the lower score and carries (1, 3): (1 + 9) / 4. Channel 1 doubles (2, 0): 16 / 4 more.
    assert [(row.group, row.ratio_units, row.dropped, row.velocity_mse) for row in rows] == [
        ("live", 0.5, 1, 2.5),
        ("live", 1.0, 2, 6.5),
        ("dead", 0.5, 1, 0.0),
        ("dead", 1.0, 2, 0.0),
    ]


def test_the_error_is_told_against_the_teacher_that_is_given(toy):
    x = torch.tensor([[1.0, 2.0]])
    asked = [question(x, torch.zeros(1, 2))]
    teacher = [torch.tensor([0.0, 4.0])[None, :, None, None]]  # what the toy says without channel 0
    rows = sensitivity(toy, [channels("live", 0, 1)], squared(toy), (0.0, 0.5), asked, teacher)
    assert [row.velocity_mse for row in rows] == [0.5, 0.0]


def test_few_units_are_measured_once_for_ratios_that_mean_the_same(toy):
    asked = [question(torch.ones(1, 2), torch.zeros(1, 2))]
    rows = sensitivity(toy, [channels("live", 0, 1)], squared(toy), (0.5, 0.6, 0.7), asked)
    assert {row.dropped for row in rows} == {1} and len({row.velocity_mse for row in rows}) == 1
    assert toy.forwards == 2  # the reference, and one


def test_what_goes_is_what_pruning_would_not_keep():
    scores = torch.tensor([9.0, 8.0, 7.0, 6.0, 1.0, 2.0, 3.0, 4.0])
    assert lowest(scores, 0.5).tolist() == [4, 5, 6, 7]
    assert lowest(scores, 0.5, norm_groups=2).tolist() == [2, 3, 4, 5]
    assert lowest(scores, 0.0).tolist() == [] and lowest(scores, 1.0).tolist() == list(range(8))
    assert len(lowest(scores[:3], 0.5)) == 2  # to the nearest, halves up
    assert lowest(scores[:2], 0.75).tolist() == [1] and lowest(scores[:1], 0.75).tolist() == []  # one stays


@pytest.mark.parametrize("spec", [TEACHER, STUDENT], ids=["teacher", "student"])
def test_nothing_dropped_is_no_error_and_the_network_comes_back_bit_for_bit(spec):
    unet, asked = draft(spec).unet, batches(1, size=1, spec=spec)
    before, groups = bits(unet), [*{group.kind: group for group in find_groups(spec)}.values(), find_groups(spec)[0]]
    rows = sensitivity(unet, groups, squared(unet), (0.0, 0.5), asked)
    assert [row.group for row in rows[::2]] == [group.name for group in groups]
    assert all(row.dropped == 0 and row.velocity_mse == 0.0 for row in rows[::2])
    assert all(row.velocity_mse > 0 for row in rows[1::2] if row.dropped)
    assert {row.kind for row in rows} == {CHANNEL, HEAD, NEURON}
    assert_same_bits(unet, before)


def test_a_failure_while_a_group_is_gone_leaves_no_hole():
    unet = draft().unet
    before = bits(unet)
    group = next(g for g in find_groups(TEACHER) if g.name == "conv_in")  # some tensors are in it along both axes

    def fail():
        with without(unet, group, torch.tensor([0, 7, 8])):
            assert not unet.get_parameter("conv_in.weight")[7].any()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert_same_bits(unet, before)


def test_a_head_that_nothing_reads_costs_exactly_nothing():
    net = draft()
    (attention,) = [g for g in find_groups(TEACHER) if g.name == "mid_block.attentions.0.transformer_blocks.0.attn1"]
    net.unet.get_parameter(f"{attention.name}.to_out.0.weight")[:, 64:128] = 0
    asked = batches(1)
    with without(net.unet, attention, torch.tensor([1])):
        silent = predictions(net.unet, asked)
    assert torch.equal(silent[0], predictions(net.unet, asked)[0])


def test_neurons_at_zero_compute_what_a_network_without_them_does():
    net, tools = draft(), bench()
    narrower, _ = FEED_FORWARD.apply(net, replace(TEACHER, ff_mult=3), tools)
    with ExitStack() as masks:
        for group in find_groups(TEACHER):
            if group.kind == NEURON:
                scores = unit_scores(group, tools.saliency(net))
                masks.enter_context(without(net.unet, group, lowest(scores, 0.25)))
        masked = outputs(net.unet)
    torch.testing.assert_close(masked, outputs(narrower.unet), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(masked, outputs(net.unet), atol=1e-3)
