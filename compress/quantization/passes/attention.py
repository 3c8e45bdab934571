"""Attention with one KV head as two plain matrix products over rows.

Shape suffixes: b batch, n queries, t keys, h query heads, d width of a head, r = n * h rows.
"""

from __future__ import annotations

import copy
import math

from torch import fx, nn

from compress.errors import UserError
from compress.quantization import ops
from compress.quantization.graph import call, module_of, operands_of, origin, refresh, shape_of


def fold_attention(graph_module: fx.GraphModule) -> int:
    """Folds the query heads of every attention into rows: Q (b, n * h, d) against one K (b, t, d) and V (b, t, d).

    With a single KV head every query row meets the same keys, so the heads need no axis of their own and none of the
    four permutations (exact). The scale 1/sqrt(d) goes into the query's RMSNorm weight, or its projection. K
    transposed and V pass a `Requantize`: the HTP multiplies two activations well only if the second is signed.
    """
    found = 0
    for node in list(graph_module.graph.nodes):
        if isinstance(module_of(node), ops.Attention):
            _fold(graph_module, node)
            found += 1
    refresh(graph_module)
    return found


def _fold(graph_module: fx.GraphModule, node: fx.Node) -> None:
    _, heads, queries, width = shape_of(node)
    scale = module_of(node).scale or 1 / math.sqrt(width)
    path = origin(node).split(" ")[0]

    def insert(suffix: str, module: nn.Module, *operands: fx.Node) -> fx.Node:
        return call(graph_module, f"{path}_{suffix}", module, *operands, like=node)

    query, key, value = (_Operand(operand) for operand in operands_of(node))
    if key.heads != 1 or value.heads != 1:
        raise UserError.of(
            f"attention with {key.heads} KV heads", f"U-Net, {origin(node)}", "Build the student with num_kv_heads=1."
        )
    rows = query.projected
    if query.norm is None:
        rows = insert("scaled_q", _scaled(module_of(rows), scale), *operands_of(rows))
    rows = insert("q_rows", ops.Reshape((queries * heads, width)), rows)
    if query.norm is not None:
        rows = insert("norm_q", _scaled(query.norm, scale), rows)
    keys = key.projected if key.norm is None else insert("norm_k", key.norm, key.projected)
    values = value.projected if value.norm is None else insert("norm_v", value.norm, value.projected)
    keys = insert("k_signed", ops.Requantize(), insert("k_transposed", ops.Permute((0, 2, 1)), keys))
    values = insert("v_signed", ops.Requantize(), values)

    weights = insert("softmax", nn.Softmax(dim=-1), insert("scores", ops.MatMul(), rows, keys))
    mixed = insert("mixed", ops.MatMul(), weights, values)
    _result(node).replace_all_uses_with(insert("heads_joined", ops.Reshape((queries, heads * width)), mixed))


class _Operand:
    """Walks from an attention's operand back to its projection: permute, [repeat heads], [norm], reshape, linear."""

    def __init__(self, node: fx.Node) -> None:
        node = self._through(node, ops.Permute, node)
        if isinstance(module_of(node), ops.RepeatInterleave):
            (node,) = operands_of(node)
        self.norm: nn.Module | None = None
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
