"""U-Nets of other families take the same way: Stable Diffusion's, SDXL's, and the scenes teacher itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compress.errors import UserError
from compress.quantization.aimet import Simulation
from compress.quantization.graph import behind_sinusoids, check_supported
from compress.quantization.host import IoSpec, NetworkInputs, network_inputs
from compress.quantization.htp import HtpTarget
from compress.quantization.htp_context import compile_context
from compress.quantization.onnx_writer import write_onnx
from compress.quantization.parity import sqnr_db
from compress.quantization.passes import htp_graph
from compress.quantization.residency import read_residency
from compress.quantization.rules import load_rules
from compress.quantization.runtime import EmulatedUNet, OnnxUNet, float_unet
from students.presets import sd15_full, sdxl_full
from students.spec import StudentSpec, with_heads
from teachers.base import Condition
from teachers.panel import PanelVelocity

SHALLOW = {"layers_per_block": (1, 1), "transformer_layers": (1, 1), "widths": (64, 128), "sample_size": 8}
FAMILIES = {
    "sd15": replace(
        sd15_full(),
        **SHALLOW,
        heads=(4, 4),
        cross_dim=48,
        down_attention=sd15_full().down_attention[:1] + sd15_full().down_attention[3:],
        up_attention=sd15_full().up_attention[:1] + sd15_full().up_attention[3:],
    ),
    "sdxl": with_heads(
        replace(
            sdxl_full(),
            **SHALLOW,
            cross_dim=48,
            pooled_dim=40,
            size_dim=16,
            down_attention=sdxl_full().down_attention[:2],
            up_attention=sdxl_full().up_attention[:2],
        )
    ),
}


def built(spec: StudentSpec) -> Any:
    torch.manual_seed(0)
    unet = replace(spec, plain=True).build().eval().requires_grad_(False)
    for module in unet.modules():
        if "Norm" in type(module).__name__:
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 0.2)
    return unet


def told(unet: Any, rows: int, sizes: int) -> Condition:
    pooled = torch.randn(rows, 40) if unet.config.addition_embed_type else None
    return Condition(torch.randn(rows, 12, 48), pooled_bd=pooled, size_b2=torch.full((rows, sizes), 64.0))


@pytest.fixture(params=[pytest.param("sd15", marks=pytest.mark.slow), "sdxl"])
def family(request: pytest.FixtureRequest) -> tuple[Any, IoSpec, NetworkInputs]:
    unet = built(FAMILIES[request.param])
    spec = IoSpec.of_unet(dict(unet.config), (8, 8), 12, pair=False)
    torch.manual_seed(1)
    condition = told(unet, 3, 6)
    return unet, spec, network_inputs(spec, torch.randn(3, 4, 8, 8), torch.tensor([1.0, 0.5, 0.02]), condition)


@pytest.mark.slow
@torch.no_grad()
def test_the_graph_is_the_network(family: tuple[Any, IoSpec, NetworkInputs]) -> None:
    unet, spec, inputs = family
    graph = htp_graph(unet, spec)
    torch.testing.assert_close(graph(*inputs.tensors()), behind_sinusoids(unet)(*inputs.tensors()), atol=1e-5, rtol=0)
    assert ("size_sinusoid" in spec.shapes(1)) == (unet.config.addition_embed_type is not None)


def test_host_and_network_together_are_the_teacher() -> None:
    unet = built(FAMILIES["sdxl"])
    spec = IoSpec.of_unet(dict(unet.config), (8, 8), 12, pair=False)
    x_bchw, sigma_b, condition = torch.randn(2, 4, 8, 8), torch.tensor([0.9, 0.1]), told(unet, 2, 6)
    expected = PanelVelocity(unet).velocity(x_bchw, sigma_b, condition)
    torch.testing.assert_close(float_unet(unet, spec).velocity(x_bchw, sigma_b, condition), expected, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="cannot edit"):
        network_inputs(spec, x_bchw, sigma_b, replace(condition, source_bchw=torch.ones(2, 4, 8, 8)))


@pytest.mark.slow
def test_the_quantized_file_agrees_with_its_simulation(
    family: tuple[Any, IoSpec, NetworkInputs], tmp_path: Path
) -> None:
    unet, spec, inputs = family
    simulation = Simulation(htp_graph(unet, spec), load_rules(75))
    simulation.calibrate(inputs, headroom_ratio=1.1)
    write_onnx(simulation.float_graph, simulation.encodings(), tmp_path / "model.onnx")
    assert sqnr_db(simulation(inputs), OnnxUNet(tmp_path / "model.onnx", spec).forward(inputs)) >= 55


@pytest.mark.slow
def test_it_compiles_without_a_float_operator(family: tuple[Any, IoSpec, NetworkInputs], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_qnn", reason="the wheel does not exist for this platform")
    unet, spec, inputs = family
    simulation = Simulation(htp_graph(unet, spec), load_rules(75))
    simulation.calibrate(inputs, headroom_ratio=1.1)
    write_onnx(simulation.float_graph, simulation.encodings(), tmp_path / "model.onnx")
    compiled = compile_context(tmp_path / "model.onnx", tmp_path, HtpTarget())
    residency = read_residency(compiled.graph_json)
    assert residency.float_ops == residency.unrequested_converts == ()
    emulated = EmulatedUNet(compiled.wrapper, spec).forward(inputs[:1])
    assert sqnr_db(simulation(inputs[:1]), emulated) >= 55


def test_other_networks_are_refused() -> None:
    with pytest.raises(UserError, match="the network is a Linear"):
        check_supported(nn.Linear(2, 2))
