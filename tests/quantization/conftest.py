"""One small student, exported, rewritten and calibrated once for all tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from compress.quantization.host import IoSpec, NetworkInputs, network_inputs
from teachers.base import Condition
from tests.tiny import SPEC

# Two heads in the middle, so that folding heads is tested; 64 and 128 channels are 2 and 4 a group.
STUDENT = replace(SPEC, widths=(64, 128, 64), heads=(1, 2, 1))


def small_unet(seed: int = 0) -> Any:
    """A student with random weights and norms that are not the identity."""
    torch.manual_seed(seed)
    unet = STUDENT.build().eval().requires_grad_(False)
    for module in unet.modules():
        if "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None:
            nn.init.normal_(module.weight, 1.0, 0.2)
            if getattr(module, "bias", None) is not None:
                nn.init.normal_(module.bias, 0.0, 0.2)
    return unet


def condition(
    rows: int, edit: bool = False, padded: bool = True, panel_chw: tuple[int, int, int] = (4, 8, 8)
) -> Condition:
    """Random texts, of which every row but the first has a few padded tokens."""
    source = torch.randn(rows, *panel_chw) if edit else None
    mask_bt = (torch.arange(32) < 32 - 5 * torch.arange(rows)[:, None]).float() if padded else None
    return Condition(
        torch.randn(rows, 32, 32), mask_bt=mask_bt, size_b2=torch.full((rows, 2), 64.0), source_bchw=source
    )


def random_inputs(spec: IoSpec, rows: int, seed: int) -> NetworkInputs:
    torch.manual_seed(seed)
    channels, height, columns = spec.latent_chw
    panel_chw = (channels, height, columns // 2)
    parts = [
        network_inputs(spec, torch.randn(rows, *panel_chw), torch.rand(rows) * 0.98 + 0.01, told)
        for told in (condition(rows, edit, spec.text_bias, panel_chw) for edit in (False, True))
    ]
    return NetworkInputs.cat(parts)


@dataclass(frozen=True)
class Quantized:
    unet: Any
    spec: IoSpec
    graph: fx.GraphModule
    simulation: Any
    encodings: Any
    inputs: NetworkInputs
    simulated: Tensor


@pytest.fixture(scope="session")
def unet() -> Any:
    return small_unet()


@pytest.fixture(scope="session")
def spec(unet: Any) -> IoSpec:
    """With the input for text padding: what works with it works without."""
    return IoSpec.of_unet(dict(unet.config), (8, 8), 32, text_bias=True)


@pytest.fixture(scope="session")
def graph(unet: Any, spec: IoSpec) -> fx.GraphModule:
    from compress.quantization.passes import htp_graph

    return htp_graph(unet, spec)


@pytest.fixture(scope="session")
def quantized(unet: Any, spec: IoSpec, graph: fx.GraphModule) -> Quantized:
    from compress.quantization.aimet import Simulation
    from compress.quantization.rules import load_rules

    simulation = Simulation(graph, load_rules(75))
    simulation.calibrate(random_inputs(spec, 8, seed=1), headroom_ratio=1.1)
    inputs = random_inputs(spec, 2, seed=2)
    return Quantized(unet, spec, graph, simulation, simulation.encodings(), inputs, simulation(inputs))
