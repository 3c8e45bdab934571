"""Dense 3x3 convolutions of residual blocks -> depthwise 3x3 + pointwise, with DreamLite's expansion of 2.

The student computes norm, SiLU, depthwise, pointwise to twice the width, + time, norm, SiLU, depthwise, pointwise back.
A dense kernel W_oi (3x3 for each output o and input i) is split one input channel at a time: the matrix of all outputs'
kernels on channel i, (outputs x 9), is approximated by its leading singular pairs (Jaderberg et al., arXiv 1405.3866).
Weighting the taps by the patches that calibration samples show lowers the error at first, but makes all kernels alike:
least squares on the pointwise weights then ends 20 % higher (measured on a scenes teacher), so the taps count alike.

- The first convolution has one depthwise kernel an input channel, so it holds the best rank-1 term. Its extra outputs
  are a second copy of the first ones. Copies sit in the same norm group, so mean and variance stay as they were.
- The second convolution sees every channel twice, each copy with a kernel of its own: it holds the two best terms.
- The student's convolutions have no bias. The first one's goes into the time projection's bias, exactly; the second
  one's into the shortcut's bias where there is a shortcut. Where there is none, the least useful second copy is turned
  into a constant (norm scale 0, shift 1.2785, SiLU of which is 1) that carries the bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from compress.pruning.surgery.base import Bench, Draft, Operator, begin
from students.init import Transplant
from students.spec import StudentSpec

SILU_ONE = 1.2784645427610738  # SiLU(1.27846...) = 1
# What the two halves of a block make together.
FIRST = ("conv1.depthwise.weight", "conv1.pointwise.weight", "time_emb_proj.weight", "time_emb_proj.bias")
SECOND = ("norm2.weight", "norm2.bias", "conv2.depthwise.weight", "conv2.pointwise.weight")


def split_dense(weight_oi33: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """The `rank` best separable terms of every input channel.

    Returns pointwise_roi, depthwise_ri33, the energy of each term energy_ri (squared singular values), and the relative
    squared error of the sum of terms. Scale is shared evenly between the two factors.
    """
    outputs, inputs = weight_oi33.shape[:2]
    per_input_io9 = weight_oi33.double().permute(1, 0, 2, 3).reshape(inputs, outputs, 9)
    # The right singular vectors are the eigenvectors of the 9 x 9 Gram matrix: at full size 50 times as fast as an SVD.
    energy_i9, vectors_i99 = torch.linalg.eigh(per_input_io9.mT @ per_input_io9)
    energy_i9 = energy_i9.clamp_min(0).flip(1)
    right_i9r, energy_ir = vectors_i99.flip(2)[:, :, :rank], energy_i9[:, :rank]
    root_ir = energy_ir.sqrt().sqrt()  # of the singular values
    safe_ir = root_ir.clamp_min(1e-9 * root_ir.max().clamp_min(1e-30))
    pointwise_roi = ((per_input_io9 @ right_i9r) / safe_ir[:, None]).permute(2, 1, 0)
    depthwise_ri33 = (right_i9r * root_ir[:, None]).permute(2, 0, 1).reshape(-1, inputs, 3, 3)
    error = float(energy_i9[:, rank:].sum() / energy_i9.sum().clamp_min(1e-300))
    return pointwise_roi, depthwise_ri33, energy_ir.T, error


def doubled(channels: int, norm_groups: int) -> tuple[Tensor, Tensor]:
    """Positions of the first and of the second copy of each channel among 2 x channels, group by group."""
    size = channels // norm_groups
    channel = torch.arange(channels)
    first = channel // size * 2 * size + channel % size
    return first, first + size


def _transplant(draft: Draft, spec: StudentSpec, bench: Bench) -> Transplant:
    transplant = begin("separable", draft, spec)
    for name, shape in transplant.had.items():
        if name.endswith(".conv1.weight"):
            block = _Block(transplant, name.removesuffix(".conv1.weight"))
            inner = shape[0]
            first, second = doubled(inner, spec.norm_groups)
            copy_of = torch.empty(2 * inner, dtype=torch.long)
            copy_of[first], copy_of[second] = torch.arange(inner), torch.arange(inner)
            has_shortcut = f"{block.name}.conv_shortcut.bias" in transplant.had
            shortcut = ("conv_shortcut.bias",) if has_shortcut else ()
            block.defer(FIRST, partial(_split_first, block, copy_of))
            block.defer((*SECOND, *shortcut), partial(_split_second, block, first, second, copy_of, has_shortcut))
    transplant.keep_rest()
    return transplant


class _Block:
    """One residual block: its old tensors by their short names, and where the new ones go."""

    def __init__(self, transplant: Transplant, name: str) -> None:
        self.transplant, self.name = transplant, name

    def old(self, tensor: str) -> Tensor:
        return self.transplant.old[f"{self.name}.{tensor}"]

    def defer(self, tensors: Iterable[str], fill: Callable[[], None]) -> None:
        self.transplant.defer([f"{self.name}.{tensor}" for tensor in tensors], fill)

    def put(self, tensor: str, value: Tensor, sources: list[str], method: str, error: float) -> None:
        self.transplant.put(f"{self.name}.{tensor}", value, [f"{self.name}.{s}" for s in sources], method, error)


def _split_first(block: _Block, copy_of: Tensor) -> None:
    """The first convolution, rank 1, every output twice; its bias moves to the time projection."""
    weight = block.old("conv1.weight")
    split, depthwise, _, error = split_dense(weight, 1)
    pointwise = split.to(weight)
    block.put("conv1.depthwise.weight", depthwise[0][:, None].to(weight), ["conv1.weight"], "SVD, rank 1", error)
    twice = pointwise[0][copy_of][..., None, None]
    block.put("conv1.pointwise.weight", twice, ["conv1.weight"], "SVD, rank 1, two copies", error)
    time, bias = block.old("time_emb_proj.weight"), block.old("time_emb_proj.bias") + block.old("conv1.bias")
    block.put("time_emb_proj.weight", time[copy_of], ["time_emb_proj.weight"], "two copies", 0.0)
    sources = ["time_emb_proj.bias", "conv1.bias"]
    block.put("time_emb_proj.bias", bias[copy_of], sources, "two copies, plus conv1's bias", 0.0)


def _split_second(block: _Block, first: Tensor, second: Tensor, copy_of: Tensor, has_shortcut: bool) -> None:
    """The second convolution, one term a copy; its bias moves to the shortcut or into a constant channel."""
    weight, bias = block.old("conv2.weight"), block.old("conv2.bias")
    scale, shift = block.old("norm2.weight")[copy_of].clone(), block.old("norm2.bias")[copy_of].clone()
    pointwise, depthwise, energy, error = split_dense(weight, 2)
    back, kernels = weight.new_zeros(weight.shape[0], len(copy_of)), weight.new_zeros(len(copy_of), 1, 3, 3)
    for position, term in ((first, 0), (second, 1)):
        back[:, position] = pointwise[term].to(back)
        kernels[position, 0] = depthwise[term].to(kernels)
    sources, method = ["conv2.weight"], "SVD, rank 2"
    if has_shortcut:
        moved = block.old("conv_shortcut.bias") + bias
        block.put("conv_shortcut.bias", moved, ["conv_shortcut.bias", "conv2.bias"], "plus conv2's bias", 0.0)
    elif bool(bias.ne(0).any()):
        spare = second[energy[1].argmin()]
        scale[spare], shift[spare] = 0.0, SILU_ONE
        kernels[spare] = 0.0
        kernels[spare, 0, 1, 1] = 1.0
        back[:, spare] = bias
        sources, method = ["conv2.weight", "conv2.bias"], "SVD, rank 2, one channel carries the bias"
        error += float(energy[1].min() / weight.double().square().sum())  # the term that was given up
    block.put("norm2.weight", scale, ["norm2.weight"], "two copies", 0.0)
    block.put("norm2.bias", shift, ["norm2.bias"], "two copies", 0.0)
    block.put("conv2.depthwise.weight", kernels, sources, method, error)
    block.put("conv2.pointwise.weight", back[..., None, None], sources, method, error)


SEPARABLE = Operator(
    "separable",
    "separable convolutions, expansion 2",
    lambda spec, goal: replace(spec, separable=goal.separable),
    _transplant,
)
