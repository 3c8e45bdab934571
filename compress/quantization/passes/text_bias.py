"""The text padding as one input that every attention adds, instead of what diffusers makes of a mask on the way."""

from __future__ import annotations

import torch
from torch import fx

from compress.quantization.graph import placeholders, refresh, shape_of
from compress.quantization.lowering import arguments_of

INPUT = "text_bias"
_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


def take_text_bias(graph_module: fx.GraphModule) -> int:
    """Gives every attention whose mask is made of the input `text_bias` alone that input itself, as (b, 1, 1, t).

    What stands between is the bias turned into a mask, back into a bias, and repeated for every head (exact).
    """
    inputs = {node.name: node for node in placeholders(graph_module)}
    if INPUT not in inputs:
        return 0
    masked = [
        node for node in graph_module.graph.nodes if node.target is _ATTENTION and _is_made_of(inputs[INPUT], node)
    ]
    if not masked:
        return 0
    with graph_module.graph.inserting_before(masked[0]):
        bias = graph_module.graph.call_function(torch.ops.aten.unsqueeze.default, (inputs[INPUT], 1))
    bias.meta["origin"], bias.meta["shape"] = f"input {INPUT}", _unsqueezed(shape_of(inputs[INPUT]))
    for node in masked:
        node.args = (*node.args[:3], bias, *node.args[4:])
        node.kwargs = {name: value for name, value in node.kwargs.items() if name != "attn_mask"}
    refresh(graph_module)
    return len(masked)


def _unsqueezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], 1, *shape[1:])


def _is_made_of(source: fx.Node, attention: fx.Node) -> bool:
    """Has this attention a mask, and does that depend on `source` and nothing else?"""
    mask = arguments_of(attention)["attn_mask"]
    return isinstance(mask, fx.Node) and _sources(mask) == {source}


def _sources(node: fx.Node) -> set[fx.Node]:
    """The inputs and weights that a node's value depends on."""
    found, waiting = set(), [node]
    while waiting:
        operands = waiting[-1].all_input_nodes
        found |= set() if operands else {waiting[-1]}
        waiting[-1:] = operands
    return found
