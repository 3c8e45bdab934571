"""GroupNorm in the only form that this toolchain runs in 16 bits: InstanceNorm over the groups, then scale and shift.

Shape suffixes: b batch, c channels, g groups, h and w rows and columns.
"""

from __future__ import annotations

import torch
from torch import fx, nn

from compress.errors import UserError
from compress.quantization import ops
from compress.quantization.graph import call, module_of, operands_of, origin, refresh, shape_of
from compress.quantization.passes.maps import is_large_map


def fold_norm_affine(graph_module: fx.GraphModule) -> int:
    """GroupNorm -> channels last -> Linear: the norm's scale and shift go into the linear weight and bias (exact).

    W (gamma * x + beta) + b = (W gamma) x + (W beta + b). This saves the two operators after the norm of every
    transformer, and two roundings.
    """
    found = 0
    for node in list(graph_module.graph.nodes):
        norm = module_of(node)
        if not isinstance(norm, nn.GroupNorm) or norm.weight is None:
            continue
        linear_node = _linear_behind(node)
        if linear_node is None:
            continue
        plain = nn.GroupNorm(norm.num_groups, norm.num_channels, eps=norm.eps, affine=False)
        absorbing = _absorb(module_of(linear_node), norm)
        node.replace_all_uses_with(call(graph_module, node.name, plain, *operands_of(node), like=node))
        replaced = call(graph_module, linear_node.name, absorbing, *operands_of(linear_node), like=linear_node)
        linear_node.replace_all_uses_with(replaced)
        found += 1
    refresh(graph_module)
    return found


def _linear_behind(node: fx.Node) -> fx.Node | None:
    """The linear layer that alone sees the norm's result, channels last; None where there is none."""
    for kind in (ops.Permute, ops.Reshape, nn.Linear):
        if len(node.users) != 1:
            return None
        (node,) = node.users
        module = module_of(node)
        if not isinstance(module, kind) or (isinstance(module, ops.Permute) and module.dims != (0, 2, 3, 1)):
            return None
    return node


def _absorb(linear: nn.Linear, norm: nn.GroupNorm) -> nn.Linear:
    absorbing = nn.Linear(linear.in_features, linear.out_features, device="meta")
    gamma, beta, weight = norm.weight.double(), norm.bias.double(), linear.weight.double()
    shift = weight @ beta + (0 if linear.bias is None else linear.bias.double())
    absorbing.weight = nn.Parameter((weight * gamma).to(linear.weight.dtype), requires_grad=False)
    absorbing.bias = nn.Parameter(shift.to(linear.weight.dtype), requires_grad=False)
    return absorbing


def expand_group_norm(graph_module: fx.GraphModule) -> int:
    """GroupNorm -> reshape (b, g, c/g*h*w) -> InstanceNorm -> (b, c, h*w) -> * scale -> + shift -> back (exact).

    On large maps scale and shift follow the way back: see maps.py.

    Raises UserError for an odd number of channels a group: the HTP compiler lays those out wrongly (a silent loss of
    50 dB; measured with 5 a group, right with 2, 4, 6 and multiples of 4).
    """
    found = 0
    for node in list(graph_module.graph.nodes):
        norm = module_of(node)
        if not isinstance(norm, nn.GroupNorm):
            continue
        per_group = norm.num_channels // norm.num_groups
        if per_group % 2:
            raise UserError.of(
                f"{norm.num_channels} channels in {norm.num_groups} groups is {per_group} a group",
                f"U-Net, {origin(node)}",
                "The HTP needs an even number of channels a group; use widths like 64, 128, 192.",
            )
        _expand(graph_module, node, norm)
        found += 1
    refresh(graph_module)
    return found


def _expand(graph_module: fx.GraphModule, node: fx.Node, norm: nn.GroupNorm) -> None:
    _, channels, rows, columns = shape_of(node)

    def insert(suffix: str, module: nn.Module, operand: fx.Node) -> fx.Node:
        return call(graph_module, f"{node.name}_{suffix}", module, operand, like=node)

    instance = nn.InstanceNorm1d(norm.num_groups, eps=norm.eps, affine=True).eval().requires_grad_(False)
    values = channels // norm.num_groups * rows * columns
    x = insert("groups", ops.Reshape((norm.num_groups, values)), operands_of(node)[0])
    x = insert("core", instance, x)
    large = is_large_map(shape_of(node))
    if large:
        x = insert("map", ops.Reshape((channels, rows, columns)), x)
    if norm.weight is not None:

        def per_channel(vector: torch.Tensor) -> torch.Tensor:
            return vector.detach().reshape(1, channels, *([1, 1] if large else [1]))

        if not large:
            x = insert("channels", ops.Reshape((channels, rows * columns)), x)
        x = insert("scale", ops.ScaleChannels(per_channel(norm.weight)), x)
        x = insert("shift", ops.ShiftChannels(per_channel(norm.bias)), x)
    if not large:
        x = insert("map", ops.Reshape((channels, rows, columns)), x)
    node.replace_all_uses_with(x)
