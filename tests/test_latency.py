"""The roofline by hand, and its rates and errors against the public measurements they come from."""

from dataclasses import replace

import pytest

from compress.latency import CHIPS, Chip, Precision, estimate, latency_of
from compress.latency.calibrate import (
    COLUMNS,
    FITTED,
    MEASURED_MS,
    UNETS,
    fit,
    leave_one_out,
    network,
    root_mean_square,
)
from compress.latency.roofline import ERROR
from compress.operations import attention, convolution, depthwise, group_norm, operations
from students.presets import dreamlite_full

CHIP = Chip("a chip", "soc", macs_t=1.0, memory_gb=10.0, vtcm_bytes=1000)


def ms(*ops, chip=CHIP, **bits):
    return latency_of(ops, chip, Precision(**bits))


def test_arithmetic_bounds_a_convolution_with_many_pixels():
    """64 x 64 channels, 3x3, 10^6 pixels at 10^12 a second; 33 channels in cost as much as 64."""
    assert ms(convolution(33, 64, 10**6, kernel=3)) == pytest.approx(1e3 * 64 * 64 * 9 * 1e6 / 1e12)


def test_memory_bounds_a_layer_with_one_token():
    """1024 x 1024 weights of a byte and 1024 biases of four at 10^10 bytes a second."""
    assert ms(convolution(1024, 1024, 1)) == pytest.approx(1e3 * (1024 * 1024 + 4 * 1024) / 1e10)


def test_two_16_bit_operands_take_twice_the_time():
    both = attention(q=512, k=512, heads=2, head_dim=64)
    assert ms(*both) == pytest.approx(1e3 * 2 * 2 * (512 * 512 * 2 * 64) / 1e12)
    assert ms(*both, activation_bits=8) == pytest.approx(ms(*both) / 4)


def test_narrower_weights_save_traffic_and_no_work():
    few, many = convolution(1024, 1024, 1, bias=False), convolution(64, 64, 10**6, bias=False)
    assert ms(few, weight_bits=4) == pytest.approx(ms(few) / 2) and ms(many, weight_bits=4) == ms(many)
    assert ms(many, weight_bits=16) == pytest.approx(2 * ms(many))


def test_a_depthwise_convolution_wastes_the_matrix_unit():
    assert ms(depthwise(64, 10**6)) == pytest.approx(1e3 * 9 * 64 * 32 * 1e6 / 1e12)


def test_only_a_group_norm_that_outgrows_the_chips_memory_goes_through_dram():
    op = group_norm(64, 100)  # 100 x 64 values in and out, 16 bits each
    moved = 2 * 100 * 64 * 2
    small, large = replace(CHIP, vtcm_bytes=moved), replace(CHIP, vtcm_bytes=moved - 1)
    assert ms(op, chip=large) - ms(op, chip=small) == pytest.approx(1e3 * moved / 1e10)


def test_the_networks_of_the_measurements_have_their_published_sizes():
    """Parameters in millions; the text encoders without their embeddings."""
    known = (859.52, 865.91, 85.06, 289.72, 49.49, 88.56, 28.58)  # torchvision's ConvNeXts add 0.03 and 0.01 of scales
    for name, parameters_m in zip(MEASURED_MS, known, strict=True):
        assert sum(op.weights for op in network(name)) / 1e6 == pytest.approx(parameters_m, abs=0.01)


@pytest.mark.parametrize("chip", COLUMNS)
def test_the_rates_are_those_that_the_measurements_give(chip):
    found = fit(chip)
    assert (found.macs_t, found.memory_gb) == pytest.approx((CHIPS[chip].macs_t, CHIPS[chip].memory_gb), rel=1e-3)


def test_the_stated_errors_are_those_of_networks_left_out():
    errors = {name: [leave_one_out(chip, name) for chip in COLUMNS] for name in MEASURED_MS}
    unets = [abs(error) for name in UNETS for error in errors[name]]
    assert sum(unets) / len(unets) == pytest.approx(0.021, abs=5e-4) and max(unets) == pytest.approx(0.034, abs=5e-4)
    every = [error for one in errors.values() for error in one]
    assert root_mean_square(every) == pytest.approx(ERROR, abs=0.005)
    assert set(UNETS) < set(FITTED) < set(errors)


def test_an_estimate_is_never_told_without_its_error():
    found = estimate(dreamlite_full(), 64, 128, 77, "8gen3")
    assert str(found) == f"about {found.latency_ms:.3g} ms ± 22% on Snapdragon 8 Gen 3 (estimated, not measured)"


def test_parts_that_are_remembered_add_up_to_the_operations():
    spec = dreamlite_full()
    for chip in CHIPS:
        one_by_one = latency_of(operations(spec, 64, 128, 77), CHIPS[chip])
        assert estimate(spec, 64, 128, 77, chip).latency_ms == pytest.approx(one_by_one)


def test_more_of_anything_never_takes_less_time():
    spec = dreamlite_full()
    base = estimate(spec, 32, 64, 77, "8elite").latency_ms
    wider = replace(spec, widths=(256, 512, 960), heads=(4, 8, 15))
    for more in (wider, replace(spec, transformer_layers=(1, 2, 5)), replace(spec, layers_per_block=(2, 3, 2))):
        assert estimate(more, 32, 64, 77, "8elite").latency_ms > base
    assert estimate(spec, 32, 128, 77, "8elite").latency_ms > base
