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

from dataclasses import replace

import torch
from torch import Tensor

from compress.pruning.surgery.base import Bench, Draft, Operator, begin
from students.init import Transplant, relative_error
from students.spec import StudentSpec

SILU_ONE = 1.2784645427610738  # SiLU(1.27846...) = 1


def split_dense(weight_oi33: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """The `rank` best separable terms of every input channel.

    Returns pointwise_roi, depthwise_ri33, the energy of each term energy_ri (squared singular values), and the relative
    squared error of the sum of terms. Scale is shared evenly between the two factors.
    """
    outputs, inputs = weight_oi33.shape[:2]
    per_input_io9 = weight_oi33.double().permute(1, 0, 2, 3).reshape(inputs, outputs, 9)
    left, values_ik, right = torch.linalg.svd(per_input_io9, full_matrices=False)
    rank_kept = min(rank, values_ik.shape[1])
    root_ik = values_ik[:, :rank_kept].sqrt()
    pointwise_roi = (left[:, :, :rank_kept] * root_ik[:, None]).permute(2, 1, 0)
    depthwise_ri33 = (right[:, :rank_kept] * root_ik[:, :, None]).permute(1, 0, 2).reshape(rank_kept, inputs, 3, 3)
    made = torch.einsum("roi,rikl->oikl", pointwise_roi, depthwise_ri33)
    return pointwise_roi, depthwise_ri33, values_ik[:, :rank_kept].square().T, relative_error(made, weight_oi33)


def doubled(channels: int, norm_groups: int) -> tuple[Tensor, Tensor]:
    """Positions of the first and of the second copy of each channel among 2 x channels, group by group."""
    size = channels // norm_groups
    channel = torch.arange(channels)
    first = channel // size * 2 * size + channel % size
    return first, first + size


def _transplant(draft: Draft, spec: StudentSpec, bench: Bench) -> Transplant:
    transplant = begin("separable", draft, spec)
    for name in transplant.old:
        if name.endswith(".conv1.weight"):
            block = _Block(transplant, name.removesuffix(".conv1.weight"))
            inner = len(transplant.old[name])
            first, second = doubled(inner, spec.norm_groups)
            copy_of = torch.empty(2 * inner, dtype=torch.long)
            copy_of[first], copy_of[second] = torch.arange(inner), torch.arange(inner)
            _split_first(block, copy_of)
            _split_second(block, first, second, copy_of, f"{block.name}.conv_shortcut.bias" in transplant.old)
    transplant.keep_rest()
    return transplant


class _Block:
    """One residual block: its old tensors by their short names, and where the new ones go."""

    def __init__(self, transplant: Transplant, name: str) -> None:
        self.transplant, self.name = transplant, name

    def old(self, tensor: str) -> Tensor:
        return self.transplant.old[f"{self.name}.{tensor}"]

    def put(self, tensor: str, value: Tensor, sources: list[str], method: str, error: float) -> None:
        made = value.to(self.old("conv1.weight").dtype)
        self.transplant.put(f"{self.name}.{tensor}", made, [f"{self.name}.{s}" for s in sources], method, error)


def _split_first(block: _Block, copy_of: Tensor) -> None:
    """The first convolution, rank 1, every output twice; its bias moves to the time projection."""
    pointwise, depthwise, _, error = split_dense(block.old("conv1.weight"), 1)
    block.put("conv1.depthwise.weight", depthwise[0][:, None], ["conv1.weight"], "SVD, rank 1", error)
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
