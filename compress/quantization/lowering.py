"""From aten operators to modules, one for one: after this every node calls a module, or the network is refused."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.errors import UserError
from compress.quantization import ops
from compress.quantization.graph import TRACE_BATCH, add_module, origin, placeholders, refresh, shape_of
from compress.quantization.host import PADDED

aten = torch.ops.aten
Arguments = dict[str, Any]


def lower(traced: fx.GraphModule) -> fx.GraphModule:
    """A new graph of modules that computes what `traced` computes and shares its weights.

    Raises UserError for an operator that no lowering is known for, naming it and the module it came from.
    """
    lowered = fx.GraphModule(nn.Module(), fx.Graph())
    graph = lowered.graph
    values: dict[fx.Node, fx.Node] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            values[node] = graph.placeholder(node.name)
            values[node].meta["shape"] = shape_of(node)
        elif node.op == "call_function":
            module, operands = _lowered(traced, node)
            name = add_module(lowered, _name(node), module)
            values[node] = graph.call_module(name, tuple(values[operand] for operand in operands))
            values[node].meta["origin"] = origin(node)
            values[node].meta["shape"] = shape_of(operands[0] if isinstance(module, nn.Identity) else node)
        elif node.op == "output":
            (result,) = node.args[0]
            graph.output(values[result])
    _mark_inputs(lowered)
    refresh(lowered)
    return lowered


def _mark_inputs(lowered: fx.GraphModule) -> None:
    """Puts a NetworkInput behind every placeholder, so that inputs enter their grid in a module too."""
    for placeholder in placeholders(lowered):
        limits = (PADDED, 0.0) if placeholder.name == "text_bias" else None
        name = add_module(lowered, f"{placeholder.name}_input", ops.NetworkInput(limits))
        with lowered.graph.inserting_after(placeholder):
            entered = lowered.graph.call_module(name, (placeholder,))
        entered.meta["origin"] = f"input {placeholder.name}"
        entered.meta["shape"] = shape_of(placeholder)
        placeholder.replace_all_uses_with(entered)
        entered.args = (placeholder,)  # its own operand was replaced with the others


def _name(node: fx.Node) -> str:
    """A readable name: the module's path for its main operator, with the operator's name where that is not enough."""
    path = origin(node).split(" ")[0]
    kind = node.target.__name__.split(".")[0]  # type: ignore[union-attr]
    main = kind in ("conv2d", "linear", "layer_norm", "group_norm", "rms_norm", "gelu")
    return path if main else f"{path}_{kind}"


def _lowered(traced: fx.GraphModule, node: fx.Node) -> tuple[nn.Module, Sequence[fx.Node]]:
    lowering = LOWERINGS.get(node.target)
    if lowering is None:
        raise UserError.of(
            f"operator {node.target} has no form for the HTP",
            f"U-Net, {origin(node)}",
            "Write a lowering for it in compress/quantization/lowering.py, or build the network without it.",
        )

    def concrete(value: Any) -> Any:
        if isinstance(value, fx.Node) and value.op == "get_attr":
            return _attribute(traced, str(value.target))
        return value

    arguments = {name: concrete(value) for name, value in arguments_of(node).items()}
    return lowering(node, arguments)


def _attribute(root: nn.Module, path: str) -> Tensor:
    value: Any = root
    for name in path.split("."):
        value = getattr(value, name)
    return value


def arguments_of(node: fx.Node) -> Arguments:
    """All arguments of an aten call by name, the defaults of its schema filled in."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return {"input": node.args[0], "index": node.args[1]}
    declared = node.target._schema.arguments
    values = {argument.name: argument.default_value for argument in declared}
    values.update({argument.name: value for argument, value in zip(declared, node.args, strict=False)})
    values.update(node.kwargs)
    return values


def _with_parameters(module: nn.Module, **parameters: Tensor | None) -> nn.Module:
    """Puts the network's own tensors in place of a module's fresh ones, without copying."""
    for name, value in parameters.items():
        setattr(module, name, None if value is None else nn.Parameter(value.detach(), requires_grad=False))
    return module


def _conv2d(node: fx.Node, given: Arguments) -> tuple[nn.Module, list[fx.Node]]:
    weight = given["weight"]
    module = nn.Conv2d(
        weight.shape[1] * given["groups"],
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=tuple(given["stride"]),
        padding=tuple(given["padding"]),
        dilation=tuple(given["dilation"]),
        groups=given["groups"],
        bias=given["bias"] is not None,
        device="meta",
    )
    return _with_parameters(module, weight=weight, bias=given["bias"]), [given["input"]]


def _linear(node: fx.Node, given: Arguments) -> tuple[nn.Module, list[fx.Node]]:
    weight = given["weight"]
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=given["bias"] is not None, device="meta")
    return _with_parameters(module, weight=weight, bias=given["bias"]), [given["input"]]


def _group_norm(node: fx.Node, given: Arguments) -> tuple[nn.Module, list[fx.Node]]:
    module = nn.GroupNorm(given["num_groups"], given["weight"].shape[0], eps=given["eps"], device="meta")
    return _with_parameters(module, weight=given["weight"], bias=given["bias"]), [given["input"]]


def _layer_norm(node: fx.Node, given: Arguments) -> tuple[nn.Module, list[fx.Node]]:
    module = nn.LayerNorm(given["normalized_shape"], eps=given["eps"], device="meta")
    return _with_parameters(module, weight=given["weight"], bias=given["bias"]), [given["input"]]


def _rms_norm(node: fx.Node, given: Arguments) -> tuple[nn.Module, list[fx.Node]]:
    module = nn.RMSNorm(given["normalized_shape"], eps=given["eps"], device="meta")
    return _with_parameters(module, weight=given["weight"]), [given["input"]]


def _reshape(node: fx.Node, given: Arguments) -> tuple[nn.Module, list[fx.Node]]:
    source: fx.Node = given["self"]
    shape = shape_of(node)
    if shape[0] != TRACE_BATCH or shape_of(source)[0] != TRACE_BATCH:
        raise UserError.of(
            f"operator {node.target} reshapes {shape_of(source)} to {shape}",
            f"U-Net, {origin(node)}",
            "A reshape must leave the batch axis in front.",
        )
    return ops.Reshape(shape[1:]), [source]


def _transpose(node: fx.Node, given: Arguments) -> tuple[nn.Module, list[fx.Node]]:
    axes = list(range(len(shape_of(node))))
    first, second = given["dim0"], given["dim1"]
    axes[first], axes[second] = axes[second], axes[first]
    return ops.Permute(tuple(axes)), [given["self"]]


def _elementwise(kind: Callable[[], nn.Module]) -> Callable[[fx.Node, Arguments], tuple[nn.Module, list[fx.Node]]]:
    def lowering(node: fx.Node, given: Arguments) -> tuple[nn.Module, list[fx.Node]]:
        if not isinstance(given["other"], fx.Node) or given.get("alpha", 1) != 1:
            raise UserError.of(
                f"operator {node.target} with the constant {given['other']!r}",
                f"U-Net, {origin(node)}",
                "Fold the constant into a neighbouring weight.",
            )
        return kind(), [given["self"], given["other"]]

    return lowering


def _chosen_half(node: fx.Node, given: Arguments) -> tuple[nn.Module, list[fx.Node]]:
    """`getitem` of a chunk in two along the last axis; the chunk itself has become an identity."""
    chunk = given["input"]
    chunks = arguments_of(chunk)
    if chunk.target is not aten.chunk.default or chunks["chunks"] != 2 or chunks["dim"] != -1:
        raise UserError.of(
            f"an element of {chunk.target}", f"U-Net, {origin(node)}", "Only halves along the last axis are known."
        )
    return ops.Half(given["index"]), [chunk]


def _attention(node: fx.Node, given: Arguments) -> tuple[nn.Module, list[fx.Node]]:
    bias = given["attn_mask"]
    if given["is_causal"] or given["dropout_p"] or given["enable_gqa"] or not _for_every_query(bias):
        raise UserError.of(
            "attention with a mask of its own, dropout or grouped keys",
            f"U-Net, {origin(node)}",
            "The HTP graph knows one mask, that of text padding, the input text_bias.",
        )
    operands = [given["query"], given["key"], given["value"]]
    return ops.Attention(given["scale"]), operands if bias is None else [*operands, bias]


def _for_every_query(bias: fx.Node | None) -> bool:
    """Is it the same for all heads and queries, or absent?"""
    return bias is None or (isinstance(bias, fx.Node) and shape_of(bias)[1:-1] == (1, 1))


def _upsample(node: fx.Node, given: Arguments) -> tuple[nn.Module, list[fx.Node]]:
    (_, _, rows, columns), (_, _, rows_in, columns_in) = shape_of(node), shape_of(given["input"])
    if (rows, columns) != (2 * rows_in, 2 * columns_in):
        raise UserError.of(
            f"upsampling from {rows_in} x {columns_in} to {rows} x {columns}",
            f"U-Net, {origin(node)}",
            "Give the latent a size that every level halves exactly.",
        )
    return nn.Upsample(scale_factor=2.0, mode="nearest"), [given["input"]]


LOWERINGS: dict[Any, Callable[[fx.Node, Arguments], tuple[nn.Module, Sequence[fx.Node]]]] = {
    aten.conv2d.default: _conv2d,
    aten.linear.default: _linear,
    aten.group_norm.default: _group_norm,
    aten.layer_norm.default: _layer_norm,
    aten.rms_norm.default: _rms_norm,
    aten.silu.default: lambda node, given: (nn.SiLU(), [given["self"]]),
    aten.relu.default: lambda node, given: (nn.ReLU(), [given["self"]]),
    aten.tanh.default: lambda node, given: (nn.Tanh(), [given["self"]]),
    aten.gelu.default: lambda node, given: (nn.GELU(given["approximate"]), [given["self"]]),
    aten.add.Tensor: _elementwise(ops.Add),
    aten.mul.Tensor: _elementwise(ops.Multiply),
    aten.cat.default: lambda node, given: (ops.Concat(given["dim"]), given["tensors"]),
    aten.view.default: _reshape,
    aten.reshape.default: _reshape,
    aten.flatten.using_ints: _reshape,
    aten.unsqueeze.default: _reshape,
    aten.permute.default: lambda node, given: (ops.Permute(given["dims"]), [given["self"]]),
    aten.transpose.int: _transpose,
    aten.repeat_interleave.self_int: lambda node, given: (
        ops.RepeatInterleave(given["repeats"], given["dim"]),
        [given["self"]],
    ),
    aten.chunk.default: lambda node, given: (nn.Identity(), [given["self"]]),
    operator.getitem: _chosen_half,
    aten.scaled_dot_product_attention.default: _attention,
    aten.upsample_nearest2d.vec: _upsample,
}
