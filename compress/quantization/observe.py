"""Calibration's look at the float network: what its tensors hold, told to AIMET's encoding analyzers.

AIMET's own compute_encodings passes activations through too, but quantizes the weights anew at every call and copies
every tensor, which at full size costs several forwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx


class _Observer(fx.Interpreter):
    """Runs the graph and shows every node's result to its quantizer's analyzer."""

    def __init__(self, graph_module: fx.GraphModule, quantizers: Mapping[str, Any]) -> None:
        super().__init__(graph_module)
        self.analyzers = {name: quantizer.encoding_analyzer for name, quantizer in quantizers.items()}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.analyzers:
            self.analyzers[n.name].update_stats(result)
        return result


@torch.no_grad()
def observe_activations(
    graph_module: fx.GraphModule,
    quantizers: Mapping[str, Any],
    batches: Iterable[tuple[Tensor, ...]],
    headroom_ratio: float = 1.0,
) -> None:
    """Sets the ranges of `quantizers` (node -> AIMET quantizer; tied nodes share one) from all calls in `batches`,
    widened by `headroom_ratio`. Fixed ranges stay."""
    free = {name: quantizer for name, quantizer in quantizers.items() if quantizer.is_overwrite_allowed()}
    for quantizer in free.values():
        quantizer.encoding_analyzer.reset_stats()
    observer = _Observer(graph_module, free)
    for batch in batches:
        observer.run(*batch)
    for quantizer in {id(quantizer): quantizer for quantizer in free.values()}.values():
        _set_range(quantizer, headroom_ratio)


@torch.no_grad()
def observe_parameter(parameter: Tensor, quantizer: Any) -> None:
    """Sets the range of a weight's quantizer."""
    quantizer.encoding_analyzer.reset_stats()
    quantizer.encoding_analyzer.update_stats(parameter)
    _set_range(quantizer, 1.0)


def _set_range(quantizer: Any, headroom_ratio: float) -> None:
    low, high = quantizer.encoding_analyzer.compute_encodings(quantizer.qmax - quantizer.qmin, quantizer.symmetric)
    quantizer.encoding_analyzer.reset_stats()
    quantizer.set_range(low * headroom_ratio, high * headroom_ratio)
