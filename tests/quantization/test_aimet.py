"""AIMET's part: rules from its own file, calibration, the accumulator guard, and the simulation's promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compress.errors import UserError
from compress.quantization import ops
from compress.quantization.aimet import Simulation, guard_accumulator
from compress.quantization.grids import Encodings
from compress.quantization.parity import sqnr_db
from compress.quantization.rules import load_rules
from compress.quantization.sensitivity import sensitivity
from tests.quantization.conftest import Quantized


def test_rules_of_v75() -> None:
    rules = load_rules(75)
    assert rules.per_channel("Conv2d") and rules.per_channel("Linear")
    assert not rules.per_channel("LayerNorm") and not rules.per_channel("ScaleChannels")
    assert rules.fixed_range("Sigmoid") == rules.fixed_range("Softmax") == (0.0, 1.0)
    assert rules.fixed_range("GELU") is None
    assert rules.weight_symmetric("Conv2d", 8) and not rules.weight_symmetric("InstanceNorm1d", 8)
    assert rules.weight_symmetric("LayerNorm", 16) and not rules.weight_symmetric("LayerNorm", 8)
    assert not rules.bias_quantized
    assert load_rules(73).content["op_type"] == rules.content["op_type"]


def test_an_unknown_generation_is_refused() -> None:
    with pytest.raises(UserError, match=r"no AIMET configuration for HTP V74.*75"):
        load_rules(74)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 6, 3), nn.InstanceNorm1d(6, affine=True)
        self.linear, self.gate, self.softmax = nn.Linear(4, 5), nn.Sigmoid(), nn.Softmax(dim=-1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.softmax(self.gate(self.linear(self.norm(self.conv(x).flatten(2)))))


@pytest.mark.slow
def test_our_rules_are_those_that_aimet_applies() -> None:
    """The same modules through AIMET's QuantizationSimModel with the V75 file, and through our reading of it."""
    from aimet_torch import QuantizationSimModel

    sim = QuantizationSimModel(
        Block().eval(), torch.randn(1, 4, 4, 4), default_output_bw=16, default_param_bw=8, config_file="htp_v75"
    )
    rules = load_rules(75)
    for name, module in sim.model.named_children():
        kind = type(module).__name__.removeprefix("Quantized")
        if "weight" in module.param_quantizers:
            quantizer = module.param_quantizers["weight"]
            assert (max(quantizer.shape, default=1) > 1) == rules.per_channel(kind), name
            assert quantizer.symmetric == rules.weight_symmetric(kind, 8), name
            assert (module.param_quantizers["bias"] is not None) == rules.bias_quantized, name
        fixed = rules.fixed_range(kind)
        if fixed is not None:
            encoding = module.output_quantizers[0].get_encodings()
            assert (float(encoding.min), round(float(encoding.max), 4)) == fixed, name


def test_everything_has_the_type_the_htp_wants(quantized: Quantized) -> None:
    tensors, parameters = quantized.encodings.tensors, quantized.encodings.parameters
    assert {name: grid.signed for name, grid in tensors.items() if grid.bits != 16} == {}
    for node, module in quantized.simulation.nodes():
        assert tensors[node.name].signed == isinstance(module, ops.Requantize)
        if isinstance(module, (nn.Sigmoid, nn.Softmax)):
            assert tensors[node.name].zero_point == 0
            assert float(tensors[node.name].scale) == pytest.approx(1 / 65535)
        weight = parameters.get(f"{node.name}.weight")
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            assert weight is not None and weight.signed and weight.bits == 8 and weight.zero_point == 0
            assert weight.scale.shape == (module.weight.shape[0],)
        elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            assert weight is not None and weight.signed and weight.bits == 16 and weight.scale.shape == ()
        elif isinstance(module, nn.InstanceNorm1d):
            assert weight is not None and not weight.signed and weight.bits == 8


def test_the_simulation_is_near_float_but_not_float(quantized: Quantized) -> None:
    expected = quantized.graph(*quantized.inputs.tensors())
    assert 28 < sqnr_db(expected, quantized.simulated) < 80


def test_encodings_alone_bring_the_simulation_back(quantized: Quantized, tmp_path: Path) -> None:
    quantized.encodings.save(tmp_path / "encodings.json")
    again = Simulation(quantized.graph, load_rules(75))
    with pytest.raises(RuntimeError, match="was not observed"):
        again.encodings()
    again.load(Encodings.load(tmp_path / "encodings.json"))
    assert sqnr_db(quantized.simulated, again(quantized.inputs)) > 60


def test_the_encodings_file_is_aimets(quantized: Quantized, tmp_path: Path) -> None:
    """Every entry is what AIMET's own encoding object writes in version 1.0.0."""
    quantized.encodings.save(tmp_path / "encodings.json")
    written = json.loads((tmp_path / "encodings.json").read_text())
    assert written["version"] == "1.0.0"
    entries = {entry.pop("name"): entry for entry in written["activation_encodings"] + written["param_encodings"]}
    quantizers = dict(quantized.simulation.grids)
    quantizers |= {name: quantizer for name, _, quantizer in quantized.simulation._parameter_quantizers()}
    assert entries.keys() == quantizers.keys()
    for name, quantizer in quantizers.items():
        theirs = quantizer.get_encodings().to_qnn_encoding_dict("1.0.0")
        np.testing.assert_allclose(entries[name].pop("scale"), theirs.pop("scale"), rtol=1e-6)
        assert entries[name] == theirs, name


def quantized_linear(bias: list[float]) -> tuple[object, object]:
    """AIMET's linear layer with a tiny weight in its first channel, and a quantizer for its input in [0, 1]."""
    from aimet_torch.nn import QuantizationMixin
    from aimet_torch.quantization.affine import QuantizeDequantize

    linear = nn.Linear(16, 2)  # wide enough that AIMET does not take the weights for already quantized ones
    values = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    linear.weight.data = values * torch.tensor([[1e-6], [1.0]])
    linear.bias.data = torch.tensor(bias)
    layer = QuantizationMixin.from_module(linear)
    layer.param_quantizers["weight"] = QuantizeDequantize(shape=(2, 1), bitwidth=8, symmetric=True)
    layer.output_quantizers[0] = QuantizeDequantize(shape=(), bitwidth=16, symmetric=False)
    source = QuantizeDequantize(shape=(), bitwidth=16, symmetric=False)
    source.set_range(0.0, 1.0)
    source.allow_overwrite(False)
    return layer, source


@pytest.mark.parametrize("bias", [[300.0, 0.5], [0.0, 0.5], [-300.0, 2.0]])
def test_the_accumulator_guard_is_aimets(bias: list[float]) -> None:
    """What AIMET's modules do when they calibrate themselves, done to directly calibrated quantizers."""
    inputs = torch.rand(4, 16)
    theirs, source = quantized_linear(bias)
    theirs.input_quantizers[0] = source
    with theirs.compute_encodings():
        theirs(inputs)
    ours, source = quantized_linear(bias)
    with ours.param_quantizers["weight"].compute_encodings():
        ours.param_quantizers["weight"](ours.weight)
    with ours.output_quantizers[0].compute_encodings():
        ours(source(inputs))
    changed = guard_accumulator(ours, source, ours.output_quantizers[0])
    expected = theirs.param_quantizers["weight"].get_scale().flatten()
    found = ours.param_quantizers["weight"].get_scale().flatten()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
    assert changed == 1  # the first channel's scale is too small for its bias, or for the requantization
    integers = torch.round(ours.bias / (source.get_scale() * found))
    assert integers.abs().max() < 2**31


@pytest.mark.slow
def test_a_wide_weight_has_16_bits_and_next_to_no_noise(quantized: Quantized) -> None:
    wide = ("conv_in.weight", "conv_out.weight")
    simulation = Simulation(quantized.graph, load_rules(75), wide)
    simulation.calibrate(quantized.inputs)
    encodings = simulation.encodings()
    always = set(quantized.encodings.wide)  # of norms
    assert set(encodings.wide) == always | set(wide) and not always & set(wide)
    again = Simulation(quantized.graph, load_rules(75), encodings.wide)
    again.load(encodings)
    assert sqnr_db(simulation(quantized.inputs), again(quantized.inputs)) > 60
    noise = {}
    for made in (simulation, quantized.simulation):
        (row,) = sensitivity(made, quantized.inputs, torch.zeros(4), chosen=["conv_in.weight"])
        noise[row.bits] = row.sqnr_db
    assert noise[16] > noise[8] + 40  # 8 bits more are 48 dB
