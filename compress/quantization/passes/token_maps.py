"""Tokens of large maps stay maps (b, h, w, c) through transformers, as the convolutions around them leave them."""

from __future__ import annotations

from torch import fx, nn

from compress.quantization import ops
from compress.quantization.graph import call, module_of, operands_of, refresh, result_shape, shape_of
from compress.quantization.passes.maps import is_large_map

# They work on the last axis, or on every number by itself.
LAST_AXIS = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.GELU, ops.Add, ops.Multiply)
CHANNELS_LAST = (0, 2, 3, 1)


def keep_token_maps(graph_module: fx.GraphModule) -> int:
    """(b, h, w, c) -> (b, h * w, c) -> layers -> (b, h, w, c)  becomes the same layers on (b, h, w, c) (exact).

    Attention's rows of heads, its keys and its values keep the shapes that their matrix products need.
    """
    return _TokenMaps(graph_module).rewrite()


class _TokenMaps:
    """One walk over the graph; `sides` says of how many rows and columns so many tokens are."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.graph_module = graph_module
        self.sides: dict[int, tuple[int, int]] = {}
        self.kept: set[fx.Node] = set()

    def rewrite(self) -> int:
        found = 0
        for node in list(self.graph_module.graph.nodes):
            if isinstance(module_of(node), ops.Reshape):
                found += self._flattened(node) or self._joined(node)
            elif self.kept.intersection(node.args):
                self._pass_on(node)
        refresh(self.graph_module)
        return found

    def _flattened(self, node: fx.Node) -> bool:
        """Leaves out a map's flattening to tokens."""
        (source,) = operands_of(node)
        turned = module_of(source)
        if not isinstance(turned, ops.Permute) or turned.dims != CHANNELS_LAST or len(shape_of(node)) != 3:
            return False
        batch, rows, columns, channels = shape_of(source)
        if not is_large_map((batch, channels, rows, columns)):
            return False
        self.sides[rows * columns] = rows, columns
        node.replace_all_uses_with(source)
        self.kept.add(source)
        return True

    def _joined(self, node: fx.Node) -> bool:
        """Attention's heads are joined to a map at once."""
        sides = self.sides.get(shape_of(node)[1])
        if sides is None or len(shape_of(node)) != 3:
            return False
        tail = (*sides, shape_of(node)[2])
        joined = call(self.graph_module, node.name, ops.Reshape(tail), *operands_of(node), like=node)
        node.replace_all_uses_with(joined)
        self.kept.add(joined)
        return True

    def _pass_on(self, node: fx.Node) -> None:
        """A layer keeps the map; what needs tokens in a row gets them."""
        if isinstance(module_of(node), LAST_AXIS):
            node.meta["shape"] = result_shape(module_of(node), operands_of(node))
            self.kept.add(node)
            return
        for operand in self.kept.intersection(node.args):
            _, rows, columns, channels = shape_of(operand)
            flat = ops.Reshape((rows * columns, channels))
            node.replace_input_with(operand, call(self.graph_module, f"{operand.name}_rows", flat, operand, like=node))
