"""Cross-attention for stages that have none: new transformers that start as the identity.

The output projection of each new transformer is zero, so it passes its input on; everything before it has fresh or
identity weights, from which the projection learns first.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from compress.pruning.surgery.base import Bench, Draft, Operator, begin
from students.init import Transplant
from students.spec import CROSS, NONE, StudentSpec


def _target(spec: StudentSpec, goal: StudentSpec) -> StudentSpec:
    def merge(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(CROSS if (a, b) == (NONE, CROSS) else a for a, b in zip(ours, theirs, strict=True))

    return replace(
        spec,
        down_attention=merge(spec.down_attention, goal.down_attention),
        up_attention=merge(spec.up_attention, goal.up_attention),
    )


def _transplant(draft: Draft, spec: StudentSpec, bench: Bench) -> Transplant:
    transplant = begin("cross_attention", draft, spec)
    transplant.keep_rest()
    for name, shape in transplant.wanted.items():
        if name in transplant.made:
            continue
        if ".proj_out." in name:
            transplant.fresh(name, torch.zeros(shape), "zero: the new layer starts as identity")
        elif name.endswith(".proj_in.weight"):
            identity = torch.eye(shape[0], shape[1]).reshape(shape)
            transplant.fresh(name, identity, "identity")
        elif ".norm" in name:
            fill = torch.ones if name.endswith("weight") else torch.zeros
            transplant.fresh(name, fill(shape), "as constructed")
        elif name.endswith("bias"):
            transplant.fresh(name, torch.zeros(shape), "zero")
        else:
            bound = shape[1] ** -0.5  # PyTorch's own range for linear layers
            weight = (2 * torch.rand(shape, generator=bench.generator) - 1) * bound
            transplant.fresh(name, weight, "random")
    return transplant


CROSS_ATTENTION = Operator("cross_attention", "cross-attention in the first stage", _target, _transplant)
