"""Drops what does nothing in a float32 network at inference: casts, dropout, memory layout, division by one."""

from __future__ import annotations

import torch
from torch import fx

from compress.quantization.graph import refresh
from compress.quantization.lowering import arguments_of

aten = torch.ops.aten
_ALWAYS = {aten.to.dtype, aten.contiguous.default, aten.dropout.default, aten._assert_tensor_metadata.default}


def _does_nothing(node: fx.Node) -> bool:
    if node.target in _ALWAYS:
        if node.target is aten.dropout.default and node.args[2]:
            raise ValueError("the network was exported in training mode")
        return True
    return node.target is aten.div.Tensor and arguments_of(node)["other"] == 1.0


def drop_noops(graph_module: fx.GraphModule) -> int:
    """Removes every operator that returns its first argument unchanged."""
    found = [node for node in graph_module.graph.nodes if node.op == "call_function" and _does_nothing(node)]
    for node in found:
        node.replace_all_uses_with(node.args[0])
    refresh(graph_module)
    return len(found)
