"""Rounding with compensation: equal to nearest where nothing can be compensated, better where something can."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compress.quantization.parity import sqnr_db
from compress.quantization.rounding import round_columns, round_layers, rows_of
from tests.quantization.conftest import random_inputs, small_unet

LOW, HIGH = -128, 127


def on_grid(weight_gom, scale_go):
    integers = weight_gom[..., :-1] / scale_go[..., None]
    return torch.allclose(integers, integers.round(), atol=1e-9) and bool((integers.abs() <= 128).all())


def output_error(weight_gom, rounded_gom, gram_gmm):
    change = rounded_gom - weight_gom
    return float(torch.einsum("gom,gmn,gon->", change, gram_gmm, change))


def test_inputs_without_mean_or_correlation_leave_rounding_to_nearest():
    weight_gom = torch.randn(2, 4, 7, dtype=torch.float64)
    scale_go = torch.full((2, 4), 0.05, dtype=torch.float64)
    gram_gmm = torch.diag(torch.rand(7, dtype=torch.float64) + 0.5).expand(2, 7, 7)
    rounded_gom = round_columns(weight_gom, gram_gmm, scale_go, LOW, HIGH)
    assert torch.equal(rounded_gom[..., :-1], (weight_gom[..., :-1] / 0.05).round() * 0.05)
    assert torch.equal(rounded_gom[..., -1], weight_gom[..., -1])


def test_two_equal_inputs_round_to_the_nearest_sum():
    """0.3 + 0.3 on the grid of integers: nearest gives 0, the best sum within reach is 1."""
    gram_gmm = torch.tensor([[[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]], dtype=torch.float64)
    weight_gom = torch.tensor([[[0.3, 0.3, 0.0]]], dtype=torch.float64)
    rounded_gom = round_columns(weight_gom, gram_gmm, torch.ones(1, 1), LOW, HIGH, damping=1e-9)
    assert rounded_gom[0, 0, :2].tolist() == [0.0, 1.0]


def test_a_constant_input_is_taken_up_by_the_bias():
    gram_gmm = torch.ones(1, 2, 2, dtype=torch.float64) + torch.diag(torch.tensor([1e-6, 0.0], dtype=torch.float64))
    weight_gom = torch.tensor([[[0.3, 2.0]]], dtype=torch.float64)
    rounded_gom = round_columns(weight_gom, gram_gmm, torch.ones(1, 1), LOW, HIGH, damping=1e-9)
    assert rounded_gom[0, 0].tolist() == pytest.approx([0.0, 2.3], abs=1e-3)


@pytest.mark.parametrize("groups", [1, 3])
def test_correlated_inputs_lose_less_than_by_rounding_to_nearest(groups):
    torch.manual_seed(0)
    rows = torch.randn(groups, 500, 5, dtype=torch.float64) @ torch.randn(groups, 5, 24, dtype=torch.float64)
    rows_grm = torch.cat([rows + 0.3, torch.ones(groups, 500, 1, dtype=torch.float64)], dim=2)
    gram_gmm = rows_grm.transpose(1, 2) @ rows_grm
    weight_gom = torch.randn(groups, 8, 25, dtype=torch.float64)
    scale_go = weight_gom[..., :-1].abs().amax(2) / 127
    rounded_gom = round_columns(weight_gom, gram_gmm, scale_go, LOW, HIGH)
    nearest_gom = weight_gom.clone()
    nearest_gom[..., :-1] = (weight_gom[..., :-1] / scale_go[..., None]).round() * scale_go[..., None]
    assert on_grid(rounded_gom, scale_go)
    assert output_error(weight_gom, rounded_gom, gram_gmm) < 0.3 * output_error(weight_gom, nearest_gom, gram_gmm)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 4, 3, padding=1, stride=2),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.Conv2d(6, 4, 1, groups=2),
        nn.Linear(6, 4),
    ],
    ids=["strided", "depthwise", "grouped", "linear"],
)
def test_rows_times_weights_are_the_layer(layer):
    x = torch.randn(2, 5, 6) if isinstance(layer, nn.Linear) else torch.randn(2, 6, 8, 8)
    groups = getattr(layer, "groups", 1)
    weight_gon = layer.weight.reshape(groups, len(layer.weight) // groups, -1)
    weight_gom = torch.cat([weight_gon, layer.bias.reshape(groups, -1, 1)], dim=2)
    product_gro = rows_of(layer, x) @ weight_gom.transpose(1, 2)
    expected = layer(x)
    if isinstance(layer, nn.Conv2d):
        expected = expected.flatten(2).transpose(1, 2)
    product = product_gro.permute(1, 0, 2).reshape(expected.shape)
    torch.testing.assert_close(product, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_network_comes_nearer_to_float_and_its_own_weights_stay(spec):
    from compress.quantization.aimet import Simulation
    from compress.quantization.passes import htp_graph
    from compress.quantization.rounding import put
    from compress.quantization.rules import load_rules

    unet = small_unet(3)
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    inputs, unseen = random_inputs(spec, 16, seed=1), random_inputs(spec, 4, seed=2)
    simulation = Simulation(htp_graph(unet, spec), load_rules(75))
    reference = simulation.float_graph(*unseen.tensors())
    simulation.calibrate(inputs, headroom_ratio=1.1)
    nearest_db = sqnr_db(reference, simulation(unseen))
    chosen = round_layers(simulation, inputs)
    compensated = simulation(unseen)
    assert sqnr_db(reference, compensated) > nearest_db + 1
    assert all(F.mse_loss(value, before[name]) == 0 for name, value in unet.state_dict().items())

    again = Simulation(htp_graph(unet, spec), load_rules(75))
    again.load(simulation.encodings())
    put(again, chosen)
    assert sqnr_db(compensated, again(unseen)) > 60  # scales are read back in single precision
