"""Rounds weights so that a layer's output moves least, not each weight by itself (GPTQ, arXiv 2210.17323).

Columns of a weight matrix are rounded one after another; what rounding one has changed in the layer's output on
calibration data is taken up, as far as it can be, by the columns that are still free and at last by the bias. The
grids stay those that were calibrated: only which integer a weight becomes is decided here.

Shape suffixes: g convolution groups, o outputs of a group, n inputs of a group (kernel taps included), m = n + 1 with
the bias as the last column, r rows: one for every position that a layer computes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from compress.quantization.aimet import Simulation, safe_scale
from compress.quantization.host import NetworkInputs
from compress.quantization.ranges import layers, visit_layers

DAMPING = 0.01  # of the mean diagonal; the paper's value


@torch.no_grad()
def round_columns(
    weight_gom: Tensor, gram_gmm: Tensor, scale_go: Tensor, low: int, high: int, damping: float = DAMPING
) -> Tensor:
    """The weights with all columns but the last on the grid `scale * {low..high}`, the last (the bias) adapted.

    Minimises the squared error of the outputs over rows whose Gram matrix is `gram_gmm`, greedily: columns of larger
    inputs first, as in the paper's "act-order". With inputs that are uncorrelated and have no mean it is rounding to
    nearest.
    """
    weight_gom, gram_gmm = weight_gom.double().clone(), gram_gmm.double()
    columns = weight_gom.shape[2]
    diagonal_gm = gram_gmm.diagonal(dim1=1, dim2=2)
    order_gm = torch.argsort(diagonal_gm[:, :-1], dim=1, descending=True, stable=True)
    order_gm = torch.cat([order_gm, torch.full_like(order_gm[:, :1], columns - 1)], dim=1)
    sorted_gom = weight_gom.gather(2, order_gm[:, None].expand_as(weight_gom))
    gram_gmm = gram_gmm.gather(1, order_gm[:, :, None].expand_as(gram_gmm))
    gram_gmm = gram_gmm.gather(2, order_gm[:, None].expand_as(gram_gmm))
    ridge_g11 = (damping * diagonal_gm.mean(1)).clamp_min(1e-12)[:, None, None]
    inverse_gmm = torch.linalg.inv(gram_gmm + ridge_g11 * torch.eye(columns, dtype=torch.float64))
    factor_gmm = torch.linalg.cholesky(inverse_gmm, upper=True)
    scale_go = scale_go.double()
    for column in range(columns - 1):
        free_go = sorted_gom[:, :, column]
        rounded_go = (free_go / scale_go).round().clamp(low, high) * scale_go
        error_go = (free_go - rounded_go) / factor_gmm[:, column, column, None]
        sorted_gom[:, :, column] = rounded_go
        sorted_gom[:, :, column + 1 :] -= error_go[:, :, None] * factor_gmm[:, None, column, column + 1 :]
    return weight_gom.scatter(2, order_gm[:, None].expand_as(weight_gom), sorted_gom)


def rows_of(module: Any, x: Tensor) -> Tensor:
    """What a layer multiplies its weights with, and 1 for the bias: (g, r, m)."""
    if isinstance(module, nn.Linear):
        rows_grn = x.reshape(1, -1, x.shape[-1])
    else:
        unfolded = F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)
        rows_grn = unfolded.reshape(len(x), module.groups, -1, unfolded.shape[2]).permute(1, 0, 3, 2).flatten(1, 2)
    return torch.cat([rows_grn, torch.ones_like(rows_grn[..., :1])], dim=2)


@torch.no_grad()
def gram_matrices(simulation: Simulation, inputs: NetworkInputs, batch_size: int = 16) -> dict[str, Tensor]:
    """Node name -> (g, m, m): sums of products of what each layer sees, over a pass of the float network."""
    grams: dict[str, Tensor] = {}
    graph = simulation.float_graph
    hooks = []
    for node, module in layers(simulation):

        def observe(module: nn.Module, operands: tuple[Tensor, ...], name: str = node.name) -> None:
            rows_grm = rows_of(module, operands[0].float())
            gram = rows_grm.transpose(1, 2) @ rows_grm
            grams[name] = grams[name] + gram if name in grams else gram

        hooks.append(graph.get_submodule(str(node.target)).register_forward_pre_hook(observe))
    try:
        for start in range(0, len(inputs), batch_size):
            graph(*inputs[start : start + batch_size].tensors())
    finally:
        for hook in hooks:
            hook.remove()
    return grams


def round_layers(simulation: Simulation, inputs: NetworkInputs, batch_size: int = 16) -> dict[str, Tensor]:
    """Chooses the integers of every layer's weights on its calibrated grid and puts them into the simulation.

    Returns what was chosen: "node.weight" as int8, "node.bias" in float where the layer has one. A layer whose adapted
    bias the HTP's accumulator could not hold is left out: it is rounded to nearest.
    """
    grams = gram_matrices(simulation, inputs, batch_size)
    chosen: dict[str, Tensor] = {}
    for node, module in layers(simulation):
        found = {f"{node.name}.{name}": value for name, value in round_layer(module, grams[node.name]).items()}
        before = {name: getattr(module, name) for name in ("weight", "bias")}
        put(simulation, found)
        (source,) = node.all_input_nodes
        fits = safe_scale(module, simulation.grids[source.name], simulation.grids[node.name])
        if torch.equal(fits, module.param_quantizers["weight"].get_encodings().scale):
            chosen |= found
        else:
            _set(simulation, node, module, before)
    return chosen


def round_layer(module: Any, gram_gmm: Tensor) -> dict[str, Tensor]:
    """`weight` as int8 and, where the layer has one, `bias`."""
    outputs, groups = module.weight.shape[0], getattr(module, "groups", 1)
    scale_go = module.param_quantizers["weight"].get_encodings().scale.detach().double().flatten()
    scale_go = scale_go.expand(outputs).reshape(groups, -1)
    bias_o = torch.zeros(outputs) if module.bias is None else module.bias.detach()
    parts = (module.weight.detach().reshape(groups, outputs // groups, -1), bias_o.reshape(groups, -1, 1))
    if module.bias is None:  # nothing is there to take up a mean error
        gram_gmm = gram_gmm.clone()
        gram_gmm[:, -1, :-1] = gram_gmm[:, :-1, -1] = 0
    rounded_gom = round_columns(torch.cat(parts, dim=2), gram_gmm, scale_go, -128, 127)
    integers = (rounded_gom[..., :-1] / scale_go[..., None]).round().reshape(module.weight.shape).to(torch.int8)
    return (
        {"weight": integers}
        if module.bias is None
        else {
            "weight": integers,
            "bias": rounded_gom[..., -1].flatten().float(),
        }
    )


def nearest(module: Any) -> Tensor:
    """A layer's weights as the nearest integers of their grid, int8."""
    scale = module.param_quantizers["weight"].get_encodings().scale.detach()
    return (module.weight.detach() / scale).round().clamp(-128, 127).to(torch.int8)


@torch.no_grad()
def correct_biases(simulation: Simulation, inputs: NetworkInputs, integers: dict[str, Tensor]) -> dict[str, Tensor]:
    """`integers` ("node.weight") with a "node.bias" for every layer that has one, less the mean error that rounding
    makes: E[y'] - E[y] = (W' - W) E[x] (arXiv 1906.04721, its bias correction), over the calls of one batch in float.
    Biases that the HTP's accumulator could not hold stay as they were."""
    chosen = dict(integers)

    def visit(node: fx.Node, module: Any, x: Tensor) -> None:
        if module.bias is None:
            return
        scale = module.param_quantizers["weight"].get_encodings().scale.detach()
        error = integers[f"{node.name}.weight"] * scale - module.weight
        mean_g1n = rows_of(module, x.float()).mean(1, keepdim=True)[..., :-1]
        error_gno = error.reshape(len(mean_g1n), -1, mean_g1n.shape[-1]).transpose(1, 2)
        bias_o, before = module.bias - (mean_g1n @ error_gno).flatten(), module.bias
        module.bias = nn.Parameter(bias_o, requires_grad=False)
        (source,) = node.all_input_nodes
        fits = torch.equal(safe_scale(module, simulation.grids[source.name], simulation.grids[node.name]), scale)
        module.bias = before
        chosen[f"{node.name}.bias"] = (bias_o if fits else before).detach().float()

    visit_layers(simulation, inputs, visit)
    return chosen


def put(simulation: Simulation, chosen: dict[str, Tensor]) -> None:
    """Gives the simulation and its float graph the chosen weights; the network they were made from keeps its own."""
    for node, module in layers(simulation):
        integers, bias_o = chosen.get(f"{node.name}.weight"), chosen.get(f"{node.name}.bias")
        if integers is None:
            continue
        scale = module.param_quantizers["weight"].get_encodings().scale.detach().float().flatten()
        weight = integers.float() * scale.reshape([-1] + [1] * (integers.dim() - 1))
        _set(simulation, node, module, {"weight": weight, "bias": bias_o})


def _set(simulation: Simulation, node: fx.Node, module: Any, values: dict[str, Tensor | None]) -> None:
    for owner in (module, simulation.float_graph.get_submodule(str(node.target))):
        for name, value in values.items():
            if value is not None:
                setattr(owner, name, nn.Parameter(value.detach(), requires_grad=False))
