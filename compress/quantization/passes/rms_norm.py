"""Six aten operators back into the one they came from: diffusers writes RMSNorm out by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from compress.quantization.graph import operands_of, refresh, shape_of

aten = torch.ops.aten


def fuse_rms_norm(graph_module: fx.GraphModule) -> int:
    """x * rsqrt(mean(x^2, -1) + eps) * weight -> rms_norm (arXiv 1910.07467, eq. 4): one operator of the HTP."""
    found = 0
    for node in list(graph_module.graph.nodes):
        matched = _match(node)
        if matched is None:
            continue
        x, weight, eps = matched
        with graph_module.graph.inserting_before(node):
            width = [shape_of(x)[-1]]
            fused = graph_module.graph.call_function(aten.rms_norm.default, (x, width, weight, eps))
        fused.meta.update(node.meta)
        node.replace_all_uses_with(fused)
        found += 1
    refresh(graph_module)
    return found


def _match(node: fx.Node) -> tuple[fx.Node, fx.Node, float] | None:
    """(x, weight, eps) where `node` is the last multiplication of an RMSNorm."""
    if node.target is not aten.mul.Tensor:
        return None
    scaled, weight = operands_of(node)
    if not _is(weight, "get_attr") or not _is(scaled, aten.mul.Tensor):
        return None
    x, inverse = operands_of(scaled)
    shifted = _argument(inverse, aten.rsqrt.default)
    mean = _argument(shifted, aten.add.Tensor)
    power = _argument(mean, aten.mean.dim)
    squared = _argument(power, aten.pow.Tensor_Scalar)
    if squared is not x or power.args[1] != 2 or list(mean.args[1]) != [-1]:
        return None
    return x, weight, float(shifted.args[1])


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, fx.Node) and (value.op == kind or value.target is kind)


def _argument(value: Any, kind: Any) -> Any:
    """The first argument of `value` if it is a call of `kind`."""
    return value.args[0] if _is(value, kind) else None
