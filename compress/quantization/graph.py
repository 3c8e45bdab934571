"""torch.export of a DreamLite U-Net behind its sinusoids, and the small tools every rewrite of that graph uses.

Two kinds of graph occur. Fresh from `export_unet` a graph calls aten operators on parameters; after
`lowering.lower` every node is the input, the output, or a call of one nn.Module that AIMET can quantize.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers.models.unets.unet_dreamlite import DreamLiteUNetModel
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from compress.errors import UserError
from compress.quantization.host import INPUT_NAMES, IoSpec

# Two rows, so that an operator that mixes samples or takes an axis of length 1 for the batch is noticed.
TRACE_BATCH = 2


class UNetBehindSinusoids(nn.Module):
    """The U-Net as a function of (sample_bchw, time_sinusoid_bd, size_sinusoid_bd, tokens_btd) -> velocity_bchw.

    Shares the given network's modules and weights; only this wrapper's own copy of the top module is changed.
    """

    def __init__(self, unet: DreamLiteUNetModel) -> None:
        super().__init__()
        inner = copy.copy(unet)
        inner.get_time_embed = lambda sample, timestep: timestep
        inner.get_aug_embed = lambda emb, encoder_hidden_states, added_cond_kwargs: inner.add_embedding(
            added_cond_kwargs["size_sinusoid"]
        )
        self.unet = inner

    def forward(self, sample: Tensor, time_sinusoid: Tensor, size_sinusoid: Tensor, tokens: Tensor) -> Tensor:
        added = {"size_sinusoid": size_sinusoid}
        return self.unet(sample, time_sinusoid, tokens, added_cond_kwargs=added, return_dict=False)[0]


def check_supported(unet: nn.Module) -> None:
    """Raises UserError for what this path cannot express, before any work."""
    if not isinstance(unet, DreamLiteUNetModel):
        raise UserError.of(
            f"the network is a {type(unet).__name__}",
            "quantization",
            "Only a DreamLiteUNetModel can be quantized for the HTP; prune the teacher into one first.",
        )
    config = unet.config
    if config.num_kv_heads != 1:
        raise UserError.of(
            f"num_kv_heads is {config.num_kv_heads!r}",
            "quantization",
            "The HTP attention folds query heads into rows, which needs one KV head; use num_kv_heads=1.",
        )
    if config.addition_embed_type != "time":
        raise UserError.of(
            f"addition_embed_type is {config.addition_embed_type!r}",
            "quantization",
            'The host computes the size embedding of DreamLite; use addition_embed_type="time".',
        )


def export_unet(unet: DreamLiteUNetModel, spec: IoSpec) -> fx.GraphModule:
    """The aten graph of the U-Net at the shapes of `spec` and batch TRACE_BATCH, in eval mode, sharing its weights."""
    check_supported(unet)
    wrapper = UNetBehindSinusoids(unet).eval()
    example = tuple(torch.zeros(shape) for shape in spec.shapes(TRACE_BATCH).values())
    with torch.no_grad():
        program = torch.export.export(wrapper, example)
    graph_module = program.module(check_guards=False)
    assert tuple(node.name for node in placeholders(graph_module)) == INPUT_NAMES
    return graph_module


def placeholders(graph_module: fx.GraphModule) -> list[fx.Node]:
    """The graph's inputs, in order."""
    return [node for node in graph_module.graph.nodes if node.op == "placeholder"]


def output_node(graph_module: fx.GraphModule) -> fx.Node:
    """The node whose value a lowered graph returns (its only output)."""
    return graph_module.graph.output_node().args[0]  # type: ignore[return-value]


def origin(node: fx.Node) -> str:
    """Where in the U-Net a node comes from: the dotted path and class of its innermost module."""
    if "origin" in node.meta:
        return node.meta["origin"]
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return "unet"
    path, kind = list(stack.values())[-1]
    kind = kind if isinstance(kind, str) else kind.__name__
    return f"{path.removeprefix('unet').lstrip('.') or 'unet'} ({kind.rsplit('.', 1)[-1]})"


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's value at TRACE_BATCH."""
    return node.meta["shape"] if "shape" in node.meta else tuple(node.meta["val"].shape)


def result_shape(module: nn.Module, operands: tuple[fx.Node, ...]) -> tuple[int, ...]:
    """The shape that `module` gives on these nodes' values, without computing."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        return tuple(module(*(torch.empty(shape_of(operand)) for operand in operands)).shape)


def module_of(node: fx.Node) -> Any:
    """The module a node calls, or None for anything else."""
    owner = node.graph.owning_module
    return owner.get_submodule(str(node.target)) if owner is not None and node.op == "call_module" else None


def operands_of(node: fx.Node) -> tuple[fx.Node, ...]:
    """The nodes that a module call takes, in order."""
    return node.args  # type: ignore[return-value]


def add_module(graph_module: fx.GraphModule, wish: str, module: nn.Module) -> str:
    """Registers `module` under a free top-level name like `wish`; every node calls a module of its own."""
    base = "".join(letter if letter.isalnum() else "_" for letter in wish).strip("_").lower() or "op"
    name, count = base, 1
    while hasattr(graph_module, name):
        count += 1
        name = f"{base}_{count}"
    graph_module.add_submodule(name, module)
    return name


def call(graph_module: fx.GraphModule, wish: str, module: nn.Module, *operands: fx.Node, like: fx.Node) -> fx.Node:
    """Inserts a call of `module` on `operands` right before `like`, whose origin it inherits; with its shape."""
    name = add_module(graph_module, wish, module)
    with graph_module.graph.inserting_before(like):
        node = graph_module.graph.call_module(name, operands)
    node.meta["origin"] = origin(like)
    node.meta["shape"] = result_shape(module, operands)
    return node


def refresh(graph_module: fx.GraphModule) -> None:
    """After a rewrite: drops what nobody uses and checks the graph.

    A node whose value nobody uses is dropped whatever it calls: torch.export counts its own assertions, and fx
    attention, as impure, but nothing here has side effects.
    """
    graph = graph_module.graph
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)
    graph.lint()
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
