"""From SDXL's `text_time` embedding to DreamLite's `time`: (width, height) alone, no pooled text.

The first linear layer keeps the columns that read the sizes; what the dropped inputs contributed on average over the
calibration batches goes into its bias. SDXL describes a picture by six numbers (original height and width, crop top and
left, target height and width); here the original is the target and nothing is cropped, so columns of equal numbers add.
Without samples the pooled text is taken to be zero on average.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from compress.pruning.surgery.base import Bench, Draft, Operator, begin
from students.init import Transplant
from students.spec import StudentSpec

LAYER = "add_embedding.linear_1"
# For each number the teacher reads, which of (width, height) it equals; None is a crop of zero.
_READS = {2: (0, 1), 6: (1, 0, None, None, 1, 0)}


def _target(spec: StudentSpec, goal: StudentSpec) -> StudentSpec:
    return replace(spec, pooled_dim=goal.pooled_dim, size_values=goal.size_values)


def _transplant(draft: Draft, spec: StudentSpec, bench: Bench) -> Transplant:
    transplant = begin("size_embedding", draft, spec)
    weight_oi = transplant.old[f"{LAYER}.weight"]
    if bench.batches:
        pooled_bd = torch.cat([_pooled(batch.condition.pooled_bd) for batch in bench.batches]).to(weight_oi)
    else:
        pooled_bd = weight_oi.new_zeros(1, draft.spec.pooled_dim or 0)
    new_oi, shift_o, lost = size_columns(weight_oi, pooled_bd, draft.spec)
    transplant.put(f"{LAYER}.weight", new_oi, [f"{LAYER}.weight"], "size columns kept", lost)
    bias = transplant.old[f"{LAYER}.bias"] + shift_o
    sources = [f"{LAYER}.bias", f"{LAYER}.weight"]
    transplant.put(f"{LAYER}.bias", bias, sources, "plus the mean of the pooled text", lost)
    transplant.keep_rest()
    return transplant


def _pooled(pooled_bd: Tensor | None) -> Tensor:
    if pooled_bd is None:
        raise ValueError("the teacher reads a pooled text embedding, and the calibration batches have none")
    return pooled_bd


def size_columns(weight_oi: Tensor, pooled_bd: Tensor, spec: StudentSpec) -> tuple[Tensor, Tensor, float]:
    """(columns for (width, height), what to add to the bias, share of the output's variance over texts that is lost).

    weight_oi reads [pooled | size sinusoids]. A size of 0 has the sinusoid (1, .., 1, 0, .., 0), cosines first.
    """
    pooled_dim, dim = spec.pooled_dim or 0, spec.size_dim
    text_oi, size_oi = weight_oi[:, :pooled_dim], weight_oi[:, pooled_dim:]
    shift_o = text_oi @ pooled_bd.mean(0)
    columns = weight_oi.new_zeros(len(weight_oi), 2, dim)
    zero_d = torch.cat([torch.ones(dim // 2), torch.zeros(dim - dim // 2)]).to(weight_oi)
    for value, meaning in enumerate(_READS[spec.size_values]):
        part_od = size_oi[:, value * dim : (value + 1) * dim]
        if meaning is None:
            shift_o = shift_o + part_od @ zero_d
        else:
            columns[:, meaning] += part_od
    text_bo = pooled_bd @ text_oi.T
    spread = (text_bo - text_bo.mean(0)).double().square().sum()
    lost = float(spread / (text_bo.double().square().sum()).clamp_min(1e-300))
    return columns.flatten(1), shift_o, lost


SIZE_EMBEDDING = Operator("size_embedding", "size embedding without pooled text", _target, _transplant)
