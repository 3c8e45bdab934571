"""Chains of reshapes into one, and reshapes to the same shape into none."""

from __future__ import annotations

from torch import fx

from compress.quantization import ops
from compress.quantization.graph import module_of, operands_of, refresh, shape_of


def merge_reshapes(graph_module: fx.GraphModule) -> int:
    """reshape(reshape(x)) -> reshape(x), and reshape(x) -> x where the shape is x's own (exact)."""
    found = 0
    for node in graph_module.graph.nodes:
        if not isinstance(module_of(node), ops.Reshape):
            continue
        (source,) = operands_of(node)
        if isinstance(module_of(source), ops.Reshape):
            node.args = source.args
            found += 1
        if shape_of(node) == shape_of(node.args[0]):
            node.replace_all_uses_with(node.args[0])
            found += 1
    refresh(graph_module)
    return found
