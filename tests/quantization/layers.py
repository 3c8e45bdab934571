"""A network of three layers and its simulation: small enough to look at, and quantized in a moment."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from compress.quantization import ops
from compress.quantization.aimet import Simulation
from compress.quantization.host import NetworkInputs
from compress.quantization.ranges import MIN_MAX, Ranges
from compress.quantization.rules import load_rules


class Layers(nn.Module):
    """A convolution, a depthwise one and a linear layer, with inputs that are neither centred nor uncorrelated."""

    def __init__(self) -> None:
        super().__init__()
        self.given = ops.NetworkInput()
        self.conv, self.depthwise = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.gate, self.linear = nn.Sigmoid(), nn.Linear(8, 5)

    def forward(self, sample: Tensor) -> Tensor:
        return self.linear(self.gate(self.depthwise(self.conv(self.given(sample)))))


class Leaves(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return True


def calls(rows: int, seed: int) -> NetworkInputs:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 1, 8, 8, generator=generator) + 0.3 * torch.randn(rows, 4, 8, 8, generator=generator) + 0.5
    x[:, 3] = 0
    return NetworkInputs(x, *[None] * 4)  # type: ignore[arg-type]


def simulation(chosen: Ranges = MIN_MAX, seed: int = 0) -> Simulation:
    torch.manual_seed(seed)
    network = Layers().eval().requires_grad_(False)
    network.conv.weight[:, 3, 0, 0] = 3.0  # the largest weights by far, on an input that is always 0
    made = Simulation(fx.GraphModule(network, Leaves().trace(network)), load_rules(75), ranges=chosen)
    made.calibrate(calls(8, seed=1))
    return made
