"""SiLU as the HTP has it: a sigmoid on its fixed grid and a product; computed once where several layers ask for it."""

from __future__ import annotations

from torch import fx, nn

from compress.quantization import ops
from compress.quantization.graph import call, module_of, operands_of, refresh, shape_of
from compress.quantization.passes.maps import is_large_map


def share_silu(graph_module: fx.GraphModule) -> int:
    """Every resnet applies SiLU to the same time embedding: keeps the first of equal ones (exact)."""
    first: dict[fx.Node, fx.Node] = {}
    found = 0
    for node in list(graph_module.graph.nodes):
        if isinstance(module_of(node), nn.SiLU):
            kept = first.setdefault(operands_of(node)[0], node)
            if kept is not node:
                node.replace_all_uses_with(kept)
                found += 1
    refresh(graph_module)
    return found


def expand_silu(graph_module: fx.GraphModule) -> int:
    """SiLU(x) -> x * sigmoid(x) (exact), so that the inner tensor has a grid of its own, [0, 1] in 16 bits.

    Over (b, c, h * w) where x is a small map (b, c, h, w): the HTP compiler fuses the two operators, and on small
    four-dimensional maps what it fuses them to is wrong in every optimization mode (0 dB at 64 x 8 x 16 and below
    behind a shift; three-dimensional it was right, 76 to 86 dB, at every size tried). Large maps stay maps: see
    maps.py.
    """
    found = 0
    for node in list(graph_module.graph.nodes):
        if isinstance(module_of(node), nn.SiLU):
            node.replace_all_uses_with(_expand(graph_module, node))
            found += 1
    refresh(graph_module)
    return found


def _expand(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    def insert(suffix: str, module: nn.Module, *operands: fx.Node) -> fx.Node:
        return call(graph_module, f"{node.name}_{suffix}", module, *operands, like=node)

    (x,) = operands_of(node)
    is_small = len(shape_of(node)) == 4 and not is_large_map(shape_of(node))
    if is_small:
        _, channels, rows, columns = shape_of(node)
        x = insert("flat", ops.Reshape((channels, rows * columns)), x)
    product = insert("product", ops.Multiply(), x, insert("sigmoid", nn.Sigmoid(), x))
    return insert("map", ops.Reshape((channels, rows, columns)), product) if is_small else product
