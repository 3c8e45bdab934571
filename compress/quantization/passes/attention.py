"""Attention as matrix products: over rows where all heads share one key and value head, else head by head.

Shapes: b batch, n queries, t keys, h query heads, d width of a head.
"""

from __future__ import annotations

import copy
import math

from torch import fx, nn

from compress.errors import UserError
from compress.quantization import ops
from compress.quantization.graph import call, module_of, operands_of, origin, refresh, shape_of


def fold_attention(graph_module: fx.GraphModule) -> int:
    """Writes every attention as matrix products. The scale 1/sqrt(d) goes into the query's RMSNorm weight, or its
    projection; K transposed and V pass a `Requantize`: the HTP multiplies two activations well only if the second is
    signed (exact, all of it)."""
    found = 0
    for node in list(graph_module.graph.nodes):
        if isinstance(module_of(node), ops.Attention):
            _Fold(graph_module, node).rewrite()
            found += 1
    refresh(graph_module)
    return found


class _Fold:
    """The rewrite of one attention node."""

    def __init__(self, graph_module: fx.GraphModule, node: fx.Node) -> None:
        self.graph_module, self.node = graph_module, node
        self.path = origin(node).split(" ")[0]
        _, self.heads, self.queries, self.width = shape_of(node)
        self.scale = module_of(node).scale or 1 / math.sqrt(self.width)
        self.query, self.key, self.value = (_Operand(operand) for operand in operands_of(node)[:3])

    def insert(self, suffix: str, module: nn.Module, *operands: fx.Node) -> fx.Node:
        return call(self.graph_module, f"{self.path}_{suffix}", module, *operands, like=self.node)

    def rewrite(self) -> None:
        kv_heads = {self.key.heads, self.value.heads}
        if kv_heads not in ({1}, {self.heads}):
            raise UserError.of(
                f"attention with {self.key.heads} KV heads for {self.heads} query heads",
                f"U-Net, {origin(self.node)}",
                "Build the network with one KV head, or as many as query heads.",
            )
        one = kv_heads == {1}
        mixed = self.mix(*(self.rows() if one else self.by_head()), flat=one)
        if not one:
            mixed = self.insert("heads_last", ops.Permute((0, 2, 1, 3)), mixed)
        joined = self.insert("heads_joined", ops.Reshape((self.queries, self.heads * self.width)), mixed)
        _result(self.node).replace_all_uses_with(joined)

    def rows(self) -> tuple[fx.Node, fx.Node, fx.Node]:
        """Q (b, n * h, d) against one K (b, d, t) and V (b, t, d): every query row meets the same keys, so that the
        heads need no axis of their own and none of the four permutations."""
        rows = self.scaled_query()
        rows = self.insert("q_rows", ops.Reshape((self.queries * self.heads, self.width)), rows)
        if self.query.norm is not None:
            rows = self.insert("norm_q", _scaled(self.query.norm, self.scale), rows)
        keys, values = (
            self.normed("k", self.key, self.key.projected),
            self.normed("v", self.value, self.value.projected),
        )
        return rows, self.insert("k_transposed", ops.Permute((0, 2, 1)), keys), values

    def by_head(self) -> tuple[fx.Node, fx.Node, fx.Node]:
        """Q (b, h, n, d) against K (b, h, d, t) and V (b, h, t, d)."""

        def split(letter: str, operand: _Operand, projected: fx.Node, axes: tuple[int, ...]) -> fx.Node:
            tokens = shape_of(projected)[1]
            parted = self.insert(f"{letter}_heads", ops.Reshape((tokens, self.heads, self.width)), projected)
            if letter == "q" and operand.norm is not None:
                parted = self.insert("norm_q", _scaled(operand.norm, self.scale), parted)
            elif letter != "q":
                parted = self.normed(letter, operand, parted)
            return self.insert(f"{letter}_turned", ops.Permute(axes), parted)

        return (
            split("q", self.query, self.scaled_query(), (0, 2, 1, 3)),
            split("k", self.key, self.key.projected, (0, 2, 3, 1)),
            split("v", self.value, self.value.projected, (0, 2, 1, 3)),
        )

    def scaled_query(self) -> fx.Node:
        """The projected queries, scaled where no norm follows that could take the scale."""
        projected = self.query.projected
        if self.query.norm is not None:
            return projected
        return self.insert("scaled_q", _scaled(module_of(projected), self.scale), *operands_of(projected))

    def normed(self, letter: str, operand: _Operand, projected: fx.Node) -> fx.Node:
        return projected if operand.norm is None else self.insert(f"norm_{letter}", operand.norm, projected)

    def mix(self, queries: fx.Node, keys: fx.Node, values: fx.Node, flat: bool) -> fx.Node:
        """softmax(Q K + bias) V."""
        keys = self.insert("k_signed", ops.Requantize(), keys)
        values = self.insert("v_signed", ops.Requantize(), values)
        scores = self.insert("scores", ops.MatMul(), queries, keys)
        for bias in operands_of(self.node)[3:]:  # (b, 1, 1, t), from (b, 1, t), which meets flat rows as it is
            scores = self.insert("biased_scores", ops.Add(), scores, operands_of(bias)[0] if flat else bias)
        return self.insert("mixed", ops.MatMul(), self.insert("softmax", nn.Softmax(dim=-1), scores), values)


class _Operand:
    """Walks from an attention's operand back to its projection: permute, [repeat heads], [norm], reshape, linear.

    diffusers' plain processor norms behind the permutation, DreamLite's before it; a norm over d does not mind.
    """

    def __init__(self, node: fx.Node) -> None:
        turned = isinstance(module_of(node), nn.RMSNorm)
        behind = copy.copy(module_of(node)) if turned else None
        node = self._through(operands_of(node)[0] if turned else node, ops.Permute, node)
        if isinstance(module_of(node), ops.RepeatInterleave):
            (node,) = operands_of(node)
        self.norm: nn.Module | None = behind
        if isinstance(module_of(node), nn.RMSNorm):
            self.norm = copy.copy(module_of(node))
            (node,) = operands_of(node)
        self.heads = shape_of(node)[2]
        self.projected = self._through(node, ops.Reshape, node)
        if not isinstance(module_of(self.projected), nn.Linear):
            raise self._unknown(self.projected)

    def _through(self, node: fx.Node, kind: type[nn.Module], place: fx.Node) -> fx.Node:
        if not isinstance(module_of(node), kind):
            raise self._unknown(place)
        return operands_of(node)[0]

    @staticmethod
    def _unknown(node: fx.Node) -> UserError:
        return UserError.of(
            f"attention behind {type(module_of(node)).__name__} has no form for the HTP",
            f"U-Net, {origin(node)}",
            'Use attention as DreamLite has it: linear projections and qk_norm "rms_norm" or none.',
        )


def _scaled(module: nn.Module, factor: float) -> nn.Module:
    """A copy of a norm or linear layer whose result is `factor` times as large."""
    scaled = copy.copy(module)
    scaled._parameters = dict(scaled._parameters)
    for name, parameter in scaled._parameters.items():
        if parameter is not None:
            setattr(scaled, name, nn.Parameter(parameter * factor, requires_grad=False))
    return scaled


def _result(node: fx.Node) -> fx.Node:
    """The node that joins the heads again: attention -> permute (0, 2, 1, 3) -> reshape (n, h * d)."""
    (permuted,) = node.users
    (joined,) = permuted.users
    if not isinstance(module_of(permuted), ops.Permute) or not isinstance(module_of(joined), ops.Reshape):
        raise UserError.of("attention whose heads are not joined", f"U-Net, {origin(node)}", "Join them as DreamLite.")
    return joined
