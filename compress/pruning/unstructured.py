"""The unstructured baseline: NNCF's magnitude masks on the teacher, at the student's number of weights.

Single weights are zeroed wherever they are smallest in the whole network. That disturbs a network less than removing
channels does, but saves nothing on hardware that multiplies by zero as slowly as by anything else: no channel is gone.
It shows how much of the structured student's error is the price of its structure.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.nncf_quiet import quiet_nncf
from compress.pruning.calibration import Noised, call_arguments, rows_of, velocity_mse


@dataclass(frozen=True)
class Unstructured:
    """What was measured: the share of weights that stayed, how many parameters that is, and the velocity error."""

    ratio_kept: float
    parameters_m: float
    velocity_mse: float


def masked(teacher: nn.Module, batch: Noised, ratio_removed: float) -> nn.Module:
    """A copy of the teacher with `ratio_removed` (0..1) of the weights in its layers masked by NNCF, smallest first."""
    model = copy.deepcopy(teacher)
    arguments = call_arguments(teacher, rows_of(batch, slice(0, 1)))
    with quiet_nncf() as nncf:
        mode = nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_GLOBAL
        pruned: nn.Module = nncf.prune(model, mode=mode, ratio=ratio_removed, examples_inputs=arguments)
    return pruned.eval()


def kept_parameters(pruned: nn.Module) -> int:
    """Parameters that are not masked; norms and biases, which NNCF leaves alone, count as kept."""
    masks = [mask for name, mask in pruned.named_buffers() if name.endswith("binary_mask")]
    removed = sum(int((~mask).sum()) for mask in masks)
    return sum(p.numel() for p in pruned.parameters()) - removed


def baseline(
    teacher: nn.Module, parameters: int, held_out: Sequence[Noised], reference: Sequence[Tensor]
) -> Unstructured:
    """The teacher with as many unmasked weights as a student has `parameters`."""
    total = sum(p.numel() for p in teacher.parameters())
    maskable = sum(m.weight.numel() for m in teacher.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    ratio_removed = min(max((total - parameters) / maskable, 0.0), 0.999)
    with torch.no_grad():
        pruned = masked(teacher, held_out[0], ratio_removed)
    kept = kept_parameters(pruned)
    return Unstructured(kept / total, kept / 1e6, velocity_mse(pruned, held_out, reference))
