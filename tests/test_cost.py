"""Costs against the published figures of SDXL and DreamLite, without a single weight."""

from dataclasses import replace

import pytest
from torch import nn

from compress.cost import _padded_bytes, cost, parameters, skeleton
from students.presets import dreamlite_full, sdxl_full
from students.spec import CROSS, NONE, SELF_CROSS
from tests.pruning.nets import STUDENT, TEACHER

FULL = dreamlite_full()
# From SDXL to DreamLite, cumulative: what changes, parameters in M, GMAC at 128x128, GMAC at 128x256, 77 tokens.
EVOLUTION = [
    ({}, 2567.5, 3381, 7487),
    ({"transformer_layers": (1, 2, 4)}, 1316.3, 2175, 4897),
    ({"widths": FULL.widths, "heads": FULL.heads}, 706.2, 1272, 2970),
    ({"down_attention": (NONE, CROSS, SELF_CROSS), "up_attention": (NONE, CROSS, SELF_CROSS)}, 695.7, 1057, 2197),
    ({"separable": True}, 585.8, 765, 1611),
    ({"kv_heads": 1}, 449.9, 720, 1530),
    ({"ff_mult": 3}, 384.2, 629, 1347),
    ({"down_attention": FULL.down_attention}, 386.4, 658, 1406),
    ({"qk_norm": True, "cross_dim": 2304, "text_dim": 2048, "pooled_dim": None, "size_values": 2}, 390.0, 659, 1406),
]


@pytest.mark.slow
def test_every_step_from_sdxl_to_dreamlite_has_the_known_number_of_parameters():
    spec = sdxl_full()
    for change, parameters_m, _, _ in EVOLUTION:
        spec = replace(spec, **change)
        assert parameters(spec) / 1e6 == pytest.approx(parameters_m, rel=1e-3)
    assert spec == FULL


@pytest.mark.slow
def test_every_step_from_sdxl_to_dreamlite_has_the_known_compute():
    spec = sdxl_full()
    for change, _, single_g, pair_g in EVOLUTION:
        spec = replace(spec, **change)
        assert cost(spec, 128, 128, 77).macs_g == pytest.approx(single_g, rel=1e-3)
        assert cost(spec, 128, 256, 77).macs_g == pytest.approx(pair_g, rel=1e-3)


@pytest.mark.parametrize(("height", "width", "gmac"), [(128, 256, 1417), (64, 128, 322)])
@pytest.mark.slow
def test_the_students_compute_is_the_published_one(height, width, gmac):
    assert cost(FULL, height, width, 128).macs_g == pytest.approx(gmac, rel=5e-3)


def test_macs_of_one_layer_by_hand():
    """A wider output convolution adds out * in * 9 multiplications for each of its pixels, and nothing else."""
    wider = replace(STUDENT, out_channels=STUDENT.out_channels + 1)
    assert cost(wider, 8, 16, 5).macs - cost(STUDENT, 8, 16, 5).macs == 64 * 9 * 8 * 16
    assert parameters(wider) - parameters(STUDENT) == 64 * 9 + 1


def test_parameters_need_no_forward_and_agree_with_one():
    assert (
        parameters(TEACHER) == cost(TEACHER, 8, 8, 5).parameters == sum(p.numel() for p in TEACHER.build().parameters())
    )


@pytest.mark.parametrize(("channels", "padded"), [(288, 288), (300, 320), (320, 320), (321, 352)])
def test_channels_are_stored_in_32s(channels, padded):
    """peers.md fact 10: 300 and 320 channels compile to the same size."""
    conv = nn.Conv2d(channels, channels, 3)
    assert _padded_bytes(conv) == padded * padded * 9 + 4 * padded


def test_a_depthwise_kernel_is_not_padded_across():
    assert _padded_bytes(nn.Conv2d(40, 40, 3, groups=40, bias=False)) == 64 * 9


def test_nothing_is_allocated():
    assert {p.device.type for p in skeleton(FULL).parameters()} == {"meta"}
