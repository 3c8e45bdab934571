"""Dependency groups: every width belongs to exactly one, and what torch-pruning leaves loose is tied."""

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
import torch

from compress.cost import skeleton
from compress.pruning.groups import CHANNEL, DIMENSION, HEAD, NEURON, find_groups, within_heads
from students.spec import NONE, SELF_CROSS
from tests.pruning.families import NARROW, some_slow
from tests.pruning.nets import STUDENT, TEACHER

THREE_STAGES = replace(
    TEACHER,
    widths=(64, 128, 128),
    heads=(1, 2, 2),
    layers_per_block=(2, 2, 2),
    transformer_layers=(1, 1, 1),
    down_attention=(NONE, SELF_CROSS, SELF_CROSS),
    up_attention=(NONE, SELF_CROSS, SELF_CROSS),
)
MHA_STUDENT = replace(STUDENT, kv_heads=None)
GIVEN_FROM_OUTSIDE = ("encoder_hid_proj", "conv_out", "norm_q", "norm_k")  # text, latent and head widths


@cache
def groups_of(spec):
    return find_groups(spec)


def groups_by_name(spec):
    return {group.name: group for group in groups_of(spec)}


SPECS = {"teacher": TEACHER, "three stages": THREE_STAGES, "student": STUDENT, "all keys": MHA_STUDENT, **NARROW}


@pytest.mark.parametrize("name", some_slow(SPECS, fast=("student", "all keys")))
def test_every_entry_of_every_width_belongs_to_exactly_one_group(name):
    spec = SPECS[name]
    found: dict[tuple[str, int], Counter[int]] = {}
    for group in groups_of(spec):
        for member in group.members:
            assert len(member.index_us) == group.units
            found.setdefault((member.parameter, member.axis), Counter()).update(member.index_us.flatten().tolist())
    net = skeleton(spec)
    for (parameter, axis), entries in found.items():
        assert entries == Counter(range(net.get_parameter(parameter).shape[axis])), parameter
    loose = {name for name, p in net.named_parameters() if p.dim() and (name, 0) not in found}
    shared = {name for name in loose if name.endswith(("to_k.weight", "to_v.weight")) and spec.kv_heads == 1}
    assert {name for name in loose - shared if not any(word in name for word in GIVEN_FROM_OUTSIDE)} == set()


def test_the_two_halves_of_geglu_are_one_neuron():
    block = "down_blocks.1.attentions.0.transformer_blocks.0.ff"
    group = groups_by_name(TEACHER)[block]
    assert (group.kind, group.units, group.unit_size) == (NEURON, 4 * 192, 2)
    rows = {member.parameter: member.index_us[3].tolist() for member in group.members}
    assert rows[f"{block}.net.0.proj.weight"] == [3, 4 * 192 + 3]
    assert rows[f"{block}.net.2.weight"] == [3]


def test_an_attention_falls_apart_into_heads():
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
    group = groups_by_name(TEACHER)[name]
    assert (group.kind, group.units) == (HEAD, 3)
    axes = {member.parameter.removeprefix(f"{name}."): member.axis for member in group.members}
    assert axes == {"to_q.weight": 0, "to_k.weight": 0, "to_v.weight": 0, "to_out.0.weight": 1}
    assert all(member.index_us[1].tolist() == list(range(64, 128)) for member in group.members)


def test_heads_that_stay_as_many_grow_thinner_by_dimensions():
    name = "down_blocks.2.attentions.0.transformer_blocks.0.attn1"
    heads = groups_by_name(NARROW["SD 1.5"])[name]
    thin = within_heads(heads)
    assert (heads.kind, heads.units, heads.unit_size) == (HEAD, 2, 96)
    assert (thin.kind, thin.units, thin.unit_size, thin.norm_groups) == (DIMENSION, 192, 1, 2)
    assert all(member.index_us.flatten().tolist() == list(range(192)) for member in thin.members)
    with pytest.raises(ValueError, match="share keys and values"):
        within_heads(groups_by_name(STUDENT)["down_blocks.1.attentions.0.transformer_blocks.0.attn1"])


def test_time_and_size_embedding_are_one_stream_that_every_residual_block_reads():
    (stream,) = [
        g
        for g in groups_of(TEACHER)
        if any((m.parameter, m.axis) == ("time_embedding.linear_2.weight", 0) for m in g.members)
    ]
    places = {(member.parameter, member.axis) for member in stream.members}
    assert {("add_embedding.linear_2.weight", 0), ("time_embedding.linear_2.bias", 0)} <= places
    readers = {name for name, _ in skeleton(TEACHER).named_parameters() if name.endswith("time_emb_proj.weight")}
    assert {(name, 1) for name in readers} <= places and stream.units == 4 * 64
    assert stream.norm_groups == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", some_slow(["KOALA", "SSD-1B"], fast=("KOALA",)))
def test_without_a_transformer_in_the_middle_the_lowest_stream_still_meets_itself(name):
    members = [m for g in groups_of(NARROW[name]) for m in g.members]
    assert any(m.parameter.startswith("mid_block.resnets.0.") for m in members) == (name == "SSD-1B")
    (read,) = [m for m in members if m.parameter == "up_blocks.0.resnets.0.norm1.weight" and m.index_us.shape[1] == 2]
    assert sorted(read.index_us[5].tolist()) == [5, 192 + 5]


def test_a_shared_key_value_head_belongs_to_no_query_head():
    """On multi-query attention torch-pruning alone divides by zero."""
    group = groups_by_name(STUDENT)["down_blocks.1.attentions.0.transformer_blocks.0.attn1"]
    assert {member.parameter.rpartition("attn1.")[2] for member in group.members} == {"to_q.weight", "to_out.0.weight"}


def test_a_skip_arrives_behind_the_channels_it_is_concatenated_to():
    (stream,) = [g for g in groups_of(TEACHER) if any(m.parameter == "conv_in.weight" for m in g.members)]
    reads = {(m.parameter, m.axis): m.index_us[:, 0].tolist() for m in stream.members}
    # The last up block reads (64 of the way up | 64 of conv_in).
    assert reads["up_blocks.1.resnets.1.conv1.weight", 1] == list(range(64, 128))
    assert stream.kind == CHANNEL and stream.norm_groups == 32


def test_a_stream_that_meets_itself_has_two_entries_a_channel():
    """The lowest skip and the middle block's output are one residual stream, concatenated with itself."""
    member = next(
        m for g in groups_of(TEACHER) for m in g.members if m.parameter == "up_blocks.0.resnets.0.norm1.weight"
    )
    assert member.index_us[5].tolist() == [5, 192 + 5]


def test_only_groups_that_a_group_norm_reads_are_cut_by_its_groups():
    groups = groups_by_name(TEACHER)
    assert groups["down_blocks.1.resnets.0.conv1"].norm_groups == 32
    assert groups["time_embedding.linear_1"].norm_groups == 0
    assert groups["down_blocks.1.attentions.0.proj_in"].norm_groups == 0


def test_neurons_alone_are_those_of_the_whole():
    alone, whole = find_groups(TEACHER, True), [group for group in groups_of(TEACHER) if group.kind == NEURON]
    assert [group.name for group in alone] == [group.name for group in whole]
    for one, other in zip(alone, whole, strict=True):
        assert [(m.parameter, m.axis) for m in one.members] == [(m.parameter, m.axis) for m in other.members]
        assert all(torch.equal(a.index_us, b.index_us) for a, b in zip(one.members, other.members, strict=True))
