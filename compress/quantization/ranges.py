"""What range a grid gets from what was observed: AIMET's analyzers for activations and weights, and Sequential MSE.

AIMET is heavy and is imported inside the functions that need it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from compress.quantization.host import Inputs

if TYPE_CHECKING:
    from compress.quantization.aimet import Simulation

ACTIVATION_RANGES = ("min_max", "percentile", "sqnr")
WEIGHT_RANGES = ("min_max", "sqnr", "seq_mse")
PERCENTILE = 99.99  # of the values that a range holds; the rest are clipped
BINS = 2048  # of a histogram; AIMET's own number
CANDIDATES = 20  # of a channel's scale in Sequential MSE; AIMET's own number
CALLS = 64  # that a walk over the layers shows them


@dataclass(frozen=True)
class Ranges:
    """How a range follows from what was observed, of activations and of weights.

    "min_max" holds everything, "percentile" all but the outliers, "sqnr" what loses least to rounding and clipping
    together (AIMET's TF-enhanced). "seq_mse" tries scales for the weights and keeps, channel by channel, the one whose
    output is nearest to the float layer's (AIMET's Sequential MSE, inputs in float).
    """

    activations: str = "min_max"
    weights: str = "min_max"

    def of_activation(self) -> Any:
        """An analyzer for one grid of activations."""
        return _analyzer(self.activations, ())

    def of_weight(self, shape: tuple[int, ...]) -> Any:
        """An analyzer for a weight's grid. Sequential MSE looks for shares of the full range."""
        return _analyzer("min_max" if self.weights == "seq_mse" else self.weights, shape)


MIN_MAX = Ranges()


def _analyzer(ranges: str, shape: tuple[int, ...]) -> Any:
    from aimet_torch.quantization.encoding_analyzer import (
        MinMaxEncodingAnalyzer,
        PercentileEncodingAnalyzer,
        SqnrEncodingAnalyzer,
    )

    makers: dict[str, Callable[[], Any]] = {
        "min_max": lambda: MinMaxEncodingAnalyzer(shape),
        "percentile": lambda: PercentileEncodingAnalyzer(shape, BINS, PERCENTILE),
        "sqnr": lambda: SqnrEncodingAnalyzer(shape, BINS),
    }
    return makers[ranges]()


def layers(simulation: Simulation) -> list[tuple[fx.Node, Any]]:
    """The convolutions and linear layers whose weights have 8 bits, in the order in which they run."""
    found = []
    for node, module in simulation.nodes():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            quantized: Any = module
            if quantized.param_quantizers["weight"].bitwidth == 8:
                found.append((node, quantized))
    return found


@torch.no_grad()
def visit_layers(simulation: Simulation, inputs: Inputs, visit: Callable[[fx.Node, Any, Tensor], None]) -> None:
    """Shows every layer, as (node, simulated module), what reaches it in the float network: CALLS calls in one batch,
    spread evenly over all of `inputs`. Only one layer's inputs are kept at a time."""
    graph, handles = simulation.float_graph, []
    for node, module in layers(simulation):

        def hook(_: nn.Module, operands: tuple[Tensor, ...], node: fx.Node = node, module: Any = module) -> None:
            visit(node, module, operands[0])

        handles.append(graph.get_submodule(str(node.target)).register_forward_pre_hook(hook))
    rows = torch.linspace(0, len(inputs) - 1, min(len(inputs), CALLS)).round().long()  # edits come last
    try:
        graph(*(tensor[rows] for tensor in inputs.tensors()))
    finally:
        for handle in handles:
            handle.remove()


def sequential_mse(simulation: Simulation, inputs: Inputs) -> None:
    """Sets the weight scales of all layers by AIMET's Sequential MSE; they have to be calibrated by min-max before."""
    from aimet_torch.seq_mse import SeqMseParams, optimize_module

    settings = SeqMseParams(num_batches=None, num_candidates=CANDIDATES)

    def visit(node: fx.Node, module: Any, x: Tensor) -> None:
        optimize_module(module, [x], [x], settings)
        quantizer = module.param_quantizers["weight"]
        quantizer.allow_overwrite(True)  # AIMET freezes it; the accumulator's guard has the last word

    visit_layers(simulation, inputs, visit)
