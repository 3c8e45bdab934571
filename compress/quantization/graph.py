"""torch.export of a U-Net behind its sinusoids, and the small tools every rewrite of that graph uses.

Two kinds of graph occur. Fresh from `export_unet` a graph calls aten operators on parameters; after
`lowering.lower` every node is the input, the output, or a call of one nn.Module that AIMET can quantize.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers import DreamLiteUNetModel, UNet2DConditionModel
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from compress.errors import UserError
from compress.quantization.host import IoSpec

# Two rows, so that an operator that mixes samples or takes an axis of length 1 for the batch is noticed.
TRACE_BATCH = 2
ADDED = (None, "time", "text_time")  # what a network may be told beside time and text


class UNetBehindSinusoids(nn.Module):
    """The U-Net as a function of (sample_bchw, time_sinusoid_bd, size_sinusoid_bd, tokens_btd) -> velocity_bchw.

    With text_bias_b1t that is added to the attention scores of the text tokens. `behind_sinusoids` picks the wrapper.
    Shares the given network's modules and weights; only this wrapper's own copy of the top module is changed.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        inner = copy.copy(unet)
        inner.get_time_embed = lambda sample, timestep: timestep
        if unet.config["addition_embed_type"] is not None:  # else it has no add_embedding, and asks for none
            inner.get_aug_embed = lambda emb, encoder_hidden_states, added_cond_kwargs: inner.add_embedding(
                added_cond_kwargs["size_sinusoid"]
            )
        self.unet = inner

    def forward(
        self,
        sample: Tensor,
        time_sinusoid: Tensor,
        size_sinusoid: Tensor | None,
        tokens: Tensor,
        text_bias: Tensor | None = None,
    ) -> Tensor:
        # diffusers takes a mask m and adds -10,000 * (1 - m); this is the m whose bias is ours
        mask = None if text_bias is None else 1 + text_bias[:, 0] / 10_000
        added = {"size_sinusoid": size_sinusoid}
        return self.unet(
            sample, time_sinusoid, tokens, encoder_attention_mask=mask, added_cond_kwargs=added, return_dict=False
        )[0]


class UnsizedUNetBehindSinusoids(UNetBehindSinusoids):
    """The same for a network that is told no size (Stable Diffusion 1 and 2): without that input."""

    def forward(  # type: ignore[override]
        self, sample: Tensor, time_sinusoid: Tensor, tokens: Tensor, text_bias: Tensor | None = None
    ) -> Tensor:
        return super().forward(sample, time_sinusoid, None, tokens, text_bias)


def behind_sinusoids(unet: UNet2DConditionModel) -> UNetBehindSinusoids:
    """The wrapper that takes this network's inputs, in eval mode."""
    kind = UNetBehindSinusoids if unet.config["addition_embed_type"] else UnsizedUNetBehindSinusoids
    return kind(unet).eval()


def check_supported(unet: nn.Module) -> None:
    """Raises UserError for what this path cannot express, before any work."""
    if not isinstance(unet, (DreamLiteUNetModel, UNet2DConditionModel)):
        raise UserError.of(
            f"the network is a {type(unet).__name__}",
            "quantization",
            "A DreamLiteUNetModel or UNet2DConditionModel can be quantized for the HTP.",
        )
    config: Any = unet.config
    kv_heads = config.get("num_kv_heads")
    if kv_heads not in (None, 1):
        raise UserError.of(
            f"num_kv_heads is {kv_heads!r}",
            "quantization",
            "Attention with one KV head or as many as query heads has a form for the HTP; use num_kv_heads=1.",
        )
    if config.addition_embed_type not in ADDED:
        raise UserError.of(
            f"addition_embed_type is {config.addition_embed_type!r}",
            "quantization",
            f"The host computes sinusoids of sizes; use one of {', '.join(map(repr, ADDED))}.",
        )


def export_unet(unet: UNet2DConditionModel, spec: IoSpec) -> fx.GraphModule:
    """The aten graph of the U-Net at the shapes of `spec` and batch TRACE_BATCH, in eval mode, sharing its weights."""
    check_supported(unet)
    wrapper = behind_sinusoids(unet)
    example = tuple(torch.zeros(shape) for shape in spec.shapes(TRACE_BATCH).values())
    with torch.no_grad():
        program = torch.export.export(wrapper, example)
    graph_module = program.module(check_guards=False)
    assert [node.name for node in placeholders(graph_module)] == list(spec.shapes(TRACE_BATCH))
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
