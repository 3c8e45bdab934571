"""QK-RMSNorm: queries and keys are divided by their root mean square over the head, then scaled per dimension.

The scales are fitted so that logits change least on calibration activations: with q^ and k^ the normed vectors, logits
are sum_d w_d q^_d k^_d, linear in the products w_d of both scales. Keys are centred within a sample, since softmax does
not see a shift common to all tokens. The normal equations need only the 64 x 64 moments of queries and of keys. Without
samples the scale is the product of the lengths that queries and keys are expected to have, the same in all dimensions.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compress.pruning.calibration import tapped
from compress.pruning.expected import White
from compress.pruning.surgery.base import Bench, Draft, Operator, begin
from compress.pruning.surgery.multi_query import attentions
from students.init import Transplant
from students.spec import StudentSpec

EPS = 1e-5  # of diffusers' RMSNorm in attention


def _transplant(draft: Draft, spec: StudentSpec, bench: Bench) -> Transplant:
    transplant = begin("qk_norm", draft, spec)
    if bench.batches:
        _fit(transplant, draft, bench)
    else:
        _expect(transplant, draft)
    transplant.keep_rest()
    return transplant


def _expect(transplant: Transplant, draft: Draft) -> None:
    for name in attentions(draft.unet):
        transplant.defer([f"{name}.norm_q.weight", f"{name}.norm_k.weight"], partial(_expect_one, transplant, name))


def _expect_one(transplant: Transplant, name: str) -> None:
    """q . k = rms(q) rms(k) q^ . k^, with the root mean squares of white inputs."""
    block, _, kind = name.rpartition(".")
    hidden = White(transplant.old, f"{block}.norm{kind.removeprefix('attn')}")
    weights = {part: transplant.old[f"{name}.{part}.weight"] for part in ("to_q", "to_k")}
    tokens = hidden if kind == "attn1" else White(transplant.old, None)
    square = hidden.mean_square(weights["to_q"].double()) * tokens.mean_square(weights["to_k"].double())
    sources = [f"{name}.to_q.weight", f"{name}.to_k.weight"]
    for part in ("norm_q", "norm_k"):
        scale_d = torch.full(transplant.wanted[f"{name}.{part}.weight"], square**0.25, dtype=weights["to_q"].dtype)
        transplant.put(f"{name}.{part}.weight", scale_d, sources, "scale of logits under white inputs")


def _fit(transplant: Transplant, draft: Draft, bench: Bench) -> None:
    layers = attentions(bench.network(draft))
    queries = {name: layer.to_q for name, layer in layers.items()}
    keys = {name: layer.to_k for name, layer in layers.items()}
    with tapped(queries, keep_input=False) as q_seen, tapped(keys, keep_input=False) as k_seen:
        bench.show(draft, "fitting norms of queries and keys")
    for name, layer in layers.items():
        pairs = [(_heads(q, layer), _heads(k, layer)) for q, k in zip(q_seen[name], k_seen[name], strict=True)]
        scale_d, error = fit_scales(pairs)
        root = scale_d.abs().sqrt()
        like = transplant.old[f"{name}.to_q.weight"].dtype
        sources = [f"{name}.to_q.weight", f"{name}.to_k.weight"]
        method = "scale fitted to the logits"
        transplant.put(f"{name}.norm_q.weight", (root * scale_d.sign()).to(like), sources, method, error)
        transplant.put(f"{name}.norm_k.weight", root.to(like), sources, method, error)


def _heads(x_btc: Tensor, layer: Any) -> Tensor:
    """(b, t, heads * d) -> (b, heads, t, d)."""
    width = layer.to_q.weight.shape[0] // layer.heads
    return x_btc.double().unflatten(2, (-1, width)).transpose(1, 2)


def fit_scales(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, float]:
    """(w_d, relative squared error of the centred logits) for batches of q_bhnd and k_bgmd, g key heads for h heads."""
    width = pairs[0][0].shape[-1]
    gram_dd = torch.zeros(width, width, dtype=torch.float64)
    right_d = torch.zeros(width, dtype=torch.float64)
    energy = torch.zeros((), dtype=torch.float64)
    for q_bhnd, k_bgmd in pairs:
        k_bhmd = k_bgmd.repeat_interleave(q_bhnd.shape[1] // k_bgmd.shape[1], dim=1)
        unit_q, unit_k = _unit(q_bhnd), _unit(k_bhmd)
        unit_k = unit_k - unit_k.mean(dim=2, keepdim=True)
        centred_k = k_bhmd - k_bhmd.mean(dim=2, keepdim=True)
        gram_dd += (_moment(unit_q, unit_q) * _moment(unit_k, unit_k)).sum((0, 1)).cpu()
        right_d += (_moment(unit_q, q_bhnd) * _moment(unit_k, centred_k)).sum((0, 1, 3)).cpu()
        energy += (_moment(q_bhnd, q_bhnd) * _moment(centred_k, centred_k)).sum().cpu()
    level = right_d.sum() / gram_dd.sum().clamp_min(1e-300)  # the best single scale; the ridge pulls towards it
    ridge = 1e-3 * gram_dd.diagonal().mean().clamp_min(1e-300)
    left = gram_dd + ridge * torch.eye(width, dtype=torch.float64)
    scale_d = torch.linalg.solve(left, right_d + ridge * level)
    # A scale of exactly zero would stop that dimension from learning.
    floor = 1e-2 * scale_d.abs().mean().clamp_min(1e-6)
    scale_d = torch.where(scale_d.abs() < floor, floor, scale_d)
    error = (scale_d @ gram_dd @ scale_d - 2 * scale_d @ right_d + energy) / energy.clamp_min(1e-300)
    return scale_d, float(error)


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS)


def _moment(a_bhnd: Tensor, b_bhne: Tensor) -> Tensor:
    return torch.einsum("bhnd,bhne->bhde", a_bhnd, b_bhne)


QK_NORM = Operator(
    "qk_norm",
    "RMSNorm on queries and keys",
    lambda spec, goal: replace(spec, qk_norm=goal.qk_norm),
    _transplant,
)
