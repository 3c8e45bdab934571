"""The formulas against the traced network, and against counts worked out by hand."""

from dataclasses import replace

import pytest

from compress.cost import cost, counted, padded_bytes, parameters
from compress.operations import attention, convolution, depthwise, norm, operations, padded
from students.presets import dreamlite_full
from students.spec import CROSS, NONE, SELF_CROSS
from tests.pruning.families import NARROW, PUBLISHED
from tests.pruning.nets import STUDENT, TEACHER

UNALIKE = replace(
    TEACHER,
    widths=(64, 128, 192),
    heads=(1, 2, 3),
    layers_per_block=(2, 1, 3),
    transformer_layers=(1, 3, 2),
    down_attention=(NONE, CROSS, SELF_CROSS),
    up_attention=(CROSS, SELF_CROSS, SELF_CROSS),
    linear_projection=False,
)


@pytest.mark.parametrize(
    "spec",
    [
        STUDENT,
        UNALIKE,
        pytest.param(replace(UNALIKE, separable=True, kv_heads=1, ff_mult=2), marks=pytest.mark.slow),
        replace(STUDENT, widths=(40, 80), heads=(1, 2), norm_groups=8, text_dim=24, cross_dim=72, pooled_dim=10),
        replace(TEACHER, size_values=0, size_dim=0, pooled_dim=None),
        *(pytest.param(spec, marks=pytest.mark.slow) for spec in NARROW.values()),
    ],
)
def test_the_formulas_count_what_the_network_has(spec):
    ops = list(operations(spec, 8, 16, 5))
    assert sum(op.weights for op in ops) == parameters(spec)
    assert sum(op.weight_bytes for op in ops) == padded_bytes(spec)
    assert sum(op.macs for op in ops) == cost(spec, 8, 16, 5).macs
    assert counted(spec, 8, 16, 5) == cost(spec, 8, 16, 5)


def test_the_published_parameters_come_out():
    published = [(spec, known) for _, spec, known, _ in PUBLISHED.values()]
    for spec, known in ((dreamlite_full(), 389_968_388), *published):
        assert sum(op.weights for op in operations(spec, 128, 128, 77)) == known


def test_one_operation_of_each_kind_by_hand():
    conv = convolution(40, 33, p_out=10, kernel=3, p_in=40)
    assert (conv.macs, conv.macs_padded) == (40 * 33 * 9 * 10, 64 * 64 * 9 * 10)
    assert (conv.weights, conv.weight_bytes) == (40 * 33 * 9 + 33, 64 * 64 * 9 + 4 * 64)
    assert conv.elements == 40 * 64 + 10 * 64
    assert (depthwise(40, 7).macs, depthwise(40, 7).macs_padded) == (9 * 40 * 7, 9 * 64 * 32 * 7)
    assert depthwise(40, 7).weight_bytes == 9 * 64
    assert norm(40, 7).weights == 80 and norm(40, 7).weight_bytes == 64 + 4 * 64 and norm(40, 7).elements == 2 * 7 * 64


def test_attention_by_hand():
    scores, softmax, mix = attention(q=6, k=5, heads=2, head_dim=40)
    assert scores.macs == mix.macs == 6 * 5 * 2 * 40
    assert scores.macs_padded == 6 * 32 * 2 * 64 and scores.dynamic
    assert softmax.elements == 2 * (6 * 32 * 2) and softmax.macs == 0


def test_padding_is_to_the_next_32():
    assert [padded(c) for c in (1, 32, 33, 300, 320)] == [32, 32, 64, 320, 320]
