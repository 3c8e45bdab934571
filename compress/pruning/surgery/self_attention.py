"""No self-attention in the upper stages.

DreamLite's block without self-attention does not skip it: the hidden state is *replaced* by LayerNorm 1's output (facts
1.2; `BasicTransformerBlockDreamLite.forward`). So LayerNorm 1, which used to prepare attention's input, now has to
stand for `h + attention(norm1(h))` itself. Its scale and shift are the least-squares fit of that target, channel by
channel, on calibration activations; the shift thereby also takes over what attention adds on average. Without samples
it stands for `h` alone, by the spread and mean that h is expected to have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from compress.pruning.calibration import tapped
from compress.pruning.expected import expected_layer_norm
from compress.pruning.least_squares import affine_fit
from compress.pruning.surgery.base import Bench, Draft, Operator, begin, stage_of, transformer_blocks
from students.init import Transplant
from students.spec import CROSS, SELF_CROSS, StudentSpec


def _target(spec: StudentSpec, goal: StudentSpec) -> StudentSpec:
    def merge(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(CROSS if (a, b) == (SELF_CROSS, CROSS) else a for a, b in zip(ours, theirs, strict=True))

    return replace(
        spec,
        down_attention=merge(spec.down_attention, goal.down_attention),
        up_attention=merge(spec.up_attention, goal.up_attention),
    )


def _transplant(draft: Draft, spec: StudentSpec, bench: Bench) -> Transplant:
    transplant = begin("self_attention", draft, spec)
    losing = {name: block for name, block in transformer_blocks(draft.unet).items() if _loses(name, draft.spec, spec)}
    if bench.batches:
        _fit(transplant, draft, losing, bench)
    else:
        _expect(transplant, losing)
    transplant.keep_rest()
    return transplant


def _expect(transplant: Transplant, losing: Iterable[str]) -> None:
    for name in losing:
        transformer = name.partition(".transformer_blocks.")[0]
        scale, shift = expected_layer_norm(transplant.old, transformer)
        sources = [f"{transformer}.{part}" for part in ("norm.weight", "norm.bias", "proj_in.weight", "proj_in.bias")]
        method = "LayerNorm set to the spread of h under white inputs"
        for part, value in (("weight", scale), ("bias", shift)):
            old = transplant.old[f"{name}.norm1.{part}"]
            transplant.put(f"{name}.norm1.{part}", torch.full_like(old, value), sources, method)


def _fit(transplant: Transplant, draft: Draft, losing: Iterable[str], bench: Bench) -> None:
    unet = bench.network(draft)
    blocks: dict[str, Any] = {name: unet.get_submodule(name) for name in losing}
    norms = {name: block.norm1 for name, block in blocks.items()}
    after = {name: block.norm2 for name, block in blocks.items()}
    with tapped(norms) as before_seen, tapped(after) as after_seen:
        bench.show(draft, "fitting LayerNorms")
    for name, norm in norms.items():
        h_nc = torch.cat([x.flatten(0, 1) for x in before_seen[name]])
        target_nc = torch.cat([x.flatten(0, 1) for x in after_seen[name]])
        scale_c, shift_c, error = fit_layer_norm(h_nc, target_nc, norm.eps)
        sources = [f"{name}.norm1.weight", f"{name}.attn1.to_out.0.weight"]
        method = "LayerNorm fitted to h + self-attention"
        transplant.put(f"{name}.norm1.weight", scale_c, sources, method, error)
        transplant.put(f"{name}.norm1.bias", shift_c, sources, method, error)


def _loses(name: str, old: StudentSpec, new: StudentSpec) -> bool:
    place = stage_of(name, old.stages)
    if place is None:
        return False
    side, stage = place
    field = f"{side}_attention"
    return getattr(old, field)[stage] == SELF_CROSS and getattr(new, field)[stage] == CROSS


def fit_layer_norm(h_nc: Tensor, target_nc: Tensor, eps: float) -> tuple[Tensor, Tensor, float]:
    """(scale_c, shift_c, relative error) of the LayerNorm that maps rows of h closest to rows of the target."""
    unit_nc = torch.nn.functional.layer_norm(h_nc.double(), h_nc.shape[1:], eps=eps)
    scale_c, shift_c, error = affine_fit(unit_nc, target_nc)
    return scale_c.to(h_nc.dtype), shift_c.to(h_nc.dtype), error


SELF_ATTENTION = Operator("self_attention", "no self-attention in the upper stages", _target, _transplant)
