"""Other ways to the grids: what each promises, on layers small enough to look at."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from compress.config.quantize import ACTIVATION_RANGES, ROUNDINGS, WEIGHT_RANGES, QuantizeConfig
from compress.quantization import ranges
from compress.quantization.ada_round import ada_round, learn_rounding
from compress.quantization.aimet import Simulation
from compress.quantization.parity import sqnr_db
from compress.quantization.ranges import Ranges, layers, visit_layers
from compress.quantization.rounding import correct_biases, nearest, put, rows_of
from compress.stages.quantize import rounded
from tests.quantization.layers import calls, simulation


def rounding_error(made: Simulation, integers: dict[str, Tensor] | None = None) -> float:
    """What the weights' grids (or these integers on them) change in the outputs of all layers, summed."""
    total = 0.0

    def visit(node: fx.Node, module: Any, x: Tensor) -> None:
        nonlocal total
        quantizer, exact = module.param_quantizers["weight"], made.float_graph.get_submodule(str(node.target))
        weight = integers[f"{node.name}.weight"] * quantizer.get_scale() if integers else quantizer(module.weight)
        rows = rows_of(module, x)[..., :-1]
        gap = (weight - exact.weight).reshape(len(rows), -1, rows.shape[-1])
        total += float((rows @ gap.transpose(1, 2)).square().mean())

    visit_layers(made, calls(8, seed=1), visit)
    return total


def test_the_configuration_offers_what_there_is():
    assert ACTIVATION_RANGES == ranges.ACTIVATION_RANGES and WEIGHT_RANGES == ranges.WEIGHT_RANGES
    config = QuantizeConfig(activation_ranges="mse", weight_ranges="max", rounding="up")
    assert {problem.what.split()[0] for problem in config.problems()} == {
        "activation_ranges",
        "weight_ranges",
        "rounding",
    }


def test_a_percentile_clips_the_outlier_that_min_max_holds():
    values = torch.cat([torch.linspace(-1, 1, 20_001), torch.tensor([100.0])])
    found = {}
    for name in ACTIVATION_RANGES:
        analyzer = Ranges(name).of_activation()
        analyzer.update_stats(values)
        low, high = analyzer.compute_encodings(2**16 - 1, is_symmetric=False)
        found[name] = float(high - low)
    assert found["min_max"] == pytest.approx(101, rel=1e-3)
    assert found["percentile"] < 2.5  # a bin is 0.05 wide
    assert found["sqnr"] > 50  # at 16 bits rounding is cheap and clipping 100 to 1 is not


def test_weights_of_norms_keep_their_whole_range():
    assert type(Ranges(weights="sqnr").of_weight((3, 1))).__name__ == "SqnrEncodingAnalyzer"
    assert type(Ranges(weights="seq_mse").of_weight((3, 1))).__name__ == "MinMaxEncodingAnalyzer"


@pytest.mark.slow
def test_sequential_mse_loses_no_more_than_the_full_range_and_moves_some_scale():
    plain, searched = simulation(), simulation(Ranges(weights="seq_mse"))
    assert rounding_error(searched) < 0.5 * rounding_error(plain)
    ratios = []
    for (_, before), (_, after) in zip(layers(plain), layers(searched), strict=True):
        scales = [layer.param_quantizers["weight"].get_scale().flatten() for layer in (before, after)]
        ratios.append(scales[1] / scales[0])
    ratio = torch.cat(ratios)
    assert bool((ratio <= 1 + 1e-4).all()) and bool((ratio < 0.99).any())  # candidates are shares of the full range
    assert torch.allclose(ratio * ranges.CANDIDATES, (ratio * ranges.CANDIDATES).round(), atol=0.02)


@pytest.mark.slow
def test_ada_round_goes_up_or_down_and_comes_nearer():
    made = simulation()
    chosen = ada_round(made, calls(8, seed=1), steps=100)
    for node, module in layers(made):
        exact = module.weight / module.param_quantizers["weight"].get_scale()
        integers = chosen[f"{node.name}.weight"].float()
        assert bool(((integers - exact).abs() <= 1 + 1e-3).all())
    assert any(bool((chosen[f"{node.name}.weight"] != nearest(module)).any()) for node, module in layers(made))
    assert rounding_error(made, chosen) < 0.8 * rounding_error(made)


def test_weights_that_lie_on_their_grid_stay_there():
    made = simulation()
    _, module = layers(made)[0]
    scale = module.param_quantizers["weight"].get_scale()
    module.weight = nn.Parameter(nearest(module) * scale, requires_grad=False)
    x = torch.randn(8, 4, 8, 8)
    assert torch.equal(learn_rounding(module, x, torch.Generator(), steps=20), nearest(module))


@pytest.mark.parametrize("how", ["nearest", pytest.param("ada_round", marks=pytest.mark.slow)])
def test_corrected_biases_leave_no_mean_error(how):
    made = simulation()
    exact = {node.name: made.float_graph.get_submodule(str(node.target)) for node, _ in layers(made)}
    exact = {name: (layer.weight.clone(), layer.bias.clone()) for name, layer in exact.items()}
    inputs: dict[str, Tensor] = {}
    visit_layers(made, calls(8, seed=1), lambda node, _, x: inputs.update({node.name: x.clone()}))
    chosen = rounded(QuantizeConfig(rounding=how, bias_correction=True), made, calls(8, seed=1))
    for node, module in layers(made):
        rows = rows_of(module, inputs[node.name])
        weights = [torch.cat([w.reshape(len(rows), -1, rows.shape[-1] - 1), b.reshape(len(rows), -1, 1)], dim=2)
                   for w, b in (exact[node.name], (module.weight, module.bias))]  # fmt: skip
        wanted, found = (rows @ weight.transpose(1, 2) for weight in weights)
        assert float((found - wanted).mean(1).abs().max()) < 1e-5
        assert not torch.equal(module.bias, exact[node.name][1])
    assert set(chosen) == {f"{node.name}.{kind}" for node, _ in layers(made) for kind in ("weight", "bias")}


def test_a_layer_of_which_only_weights_are_chosen_keeps_its_bias():
    made = simulation()
    chosen = {f"{node.name}.weight": nearest(module) for node, module in layers(made)}
    before = [module.bias.clone() for _, module in layers(made)]
    put(made, chosen)
    assert all(torch.equal(module.bias, bias) for (_, module), bias in zip(layers(made), before, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("how", ROUNDINGS)
@pytest.mark.parametrize("chosen", [Ranges("percentile", "sqnr"), Ranges("sqnr", "seq_mse")], ids=lambda r: r.weights)
def test_every_scheme_simulates_the_network(chosen, how):
    made = simulation(chosen)
    reference = made.float_graph(*calls(4, seed=2).tensors())
    rounded(QuantizeConfig(rounding=how), made, calls(8, seed=1))
    assert sqnr_db(reference, made(calls(4, seed=2))) > 20
    assert len(correct_biases(made, calls(8, seed=1), {f"{n.name}.weight": nearest(m) for n, m in layers(made)})) == 6


def test_a_walk_shows_calls_from_the_first_to_the_last():
    made, given, seen = simulation(), calls(100, seed=1), []
    visit_layers(made, given, lambda node, _, x: seen.append((node.name, x.clone())))
    name, shown = seen[0]
    assert name == "conv" and len(seen) == 3 and len(shown) == ranges.CALLS
    assert torch.equal(shown[[0, -1]], given.sample_bchw[[0, -1]])
