"""A gated feed-forward without a split: one linear layer for each half of its output."""

from __future__ import annotations

from torch import fx, nn

from compress.quantization.graph import call, module_of, operands_of, refresh


def split_geglu(graph_module: fx.GraphModule) -> int:
    """linear -> chunk in two  becomes  two linear layers, each with half of the rows of the weight (exact).

    The HTP then quantizes the gate and the value on grids of their own, and moves no data for the split.
    """
    found = 0
    for node in list(graph_module.graph.nodes):
        if not isinstance(module_of(node), nn.Identity):
            continue
        (linear_node,) = operands_of(node)
        linear = module_of(linear_node)
        if not isinstance(linear, nn.Linear) or len(linear_node.users) != 1:
            continue
        for half_node in list(node.users):
            index = module_of(half_node).index
            half = _rows(linear, index)
            name = f"{linear_node.name}_{('value', 'gate')[index]}"
            half_node.replace_all_uses_with(call(graph_module, name, half, *operands_of(linear_node), like=linear_node))
        found += 1
    refresh(graph_module)
    return found


def _rows(linear: nn.Linear, index: int) -> nn.Linear:
    rows = linear.out_features // 2
    chosen = slice(index * rows, (index + 1) * rows)
    half = nn.Linear(linear.in_features, rows, bias=linear.bias is not None, device="meta")
    half.weight = nn.Parameter(linear.weight[chosen], requires_grad=False)
    if linear.bias is not None:
        half.bias = nn.Parameter(linear.bias[chosen], requires_grad=False)
    return half
