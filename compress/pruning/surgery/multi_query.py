"""Multi-query attention: one key/value head (or a few) for all query heads (Shazeer, arXiv 1911.02150).

"mean" averages the heads' projections (GQA, Ainslie et al., arXiv 2305.13245). It is exact where heads are alike; but
heads of a trained network live in bases of their own, and averages of unrelated bases mean little.

"svd" also moves the queries and the output projection. Head h scores tokens by x^T Q_h^T K_h y: stacking the heads'
Q_h^T K_h and truncating to the head's 64 dimensions gives the shared K and each head's Q_h at once, with the least
squared change of the logits; O_h V_h likewise gives the shared V and each head's O_h. Both are weighted by the
covariances of x and y on calibration activations. For keys y is centred: a logit shift common to all tokens is
invisible after softmax. Singular values are shared evenly, so queries and keys have like norms. Without samples the
covariances are taken to be the identity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from compress.pruning.surgery.base import Bench, Draft, Operator, begin
from students.init import Shapes, Transplant
from students.spec import StudentSpec

PARTS = ("to_q", "to_k", "to_v", "to_out.0")


def attentions(unet: nn.Module) -> dict[str, Any]:
    """Name -> every attention layer."""
    return {name: m for name, m in unet.named_modules() if hasattr(m, "to_q") and hasattr(m, "to_out")}


def merge_mean(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q_hdx, k_hdy, v_hdy, out_xhd of the heads that will share -> the same with k and v of one head (1 d y)."""
    return q, k.mean(0, keepdim=True), v.mean(0, keepdim=True), out


def merge_svd(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, root_x: Tensor, root_centred_y: Tensor, root_y: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `merge_mean`, by truncated SVD; root_* are symmetric square roots of second moments of queries' and keys'
    inputs (for keys once centred, once not)."""
    heads, width = q.shape[:2]
    logits = torch.einsum("xz,hdz,hdy,yw->hxw", root_x, q, k, root_centred_y).reshape(heads * len(root_x), -1)
    left, right = _truncate(logits, width)
    shared_k = torch.linalg.solve(root_centred_y, right.T).T
    moved_q = torch.linalg.solve(root_x, left.reshape(heads, len(root_x), width))
    values = torch.einsum("xhd,hdy,yw->hxw", out, v, root_y).reshape(heads * out.shape[0], -1)
    left, right = _truncate(values, width)
    shared_v = torch.linalg.solve(root_y, right.T).T
    moved_out = left.reshape(heads, out.shape[0], width).permute(1, 0, 2)
    return moved_q.transpose(1, 2), shared_k[None], shared_v[None], moved_out


def _truncate(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best factors (n x rank, rank x m) of a tall matrix, singular values shared evenly."""
    values, vectors = torch.linalg.eigh(matrix.T @ matrix)
    right = vectors[:, -rank:].T
    left = matrix @ right.T
    root = values[-rank:].clamp_min(0).sqrt().sqrt()  # of the singular values
    if len(right) < rank:  # fewer inputs than the head is wide
        pad = rank - len(right)
        left, right = nn.functional.pad(left, (0, pad)), nn.functional.pad(right, (0, 0, 0, pad))
        root = nn.functional.pad(root, (0, pad))
    safe = root.clamp_min(1e-9 * root.max().clamp_min(1e-30))
    return left / safe, right * safe[:, None]


def _transplant(draft: Draft, spec: StudentSpec, bench: Bench) -> Transplant:
    transplant = begin("multi_query", draft, spec)
    layers = attentions(draft.unet)
    by_svd = bench.kv_merge == "svd"
    moments = _moments(draft, bench) if by_svd and bench.batches else {}
    for name, layer in layers.items():
        wanted, had = transplant.wanted[f"{name}.to_k.weight"][0], transplant.had[f"{name}.to_k.weight"][0]
        if wanted != had:
            kv_heads = wanted * layer.heads // had
            roots = moments.get(name) or (_white(transplant.had, name) if by_svd else None)
            names = [f"{name}.{part}.weight" for part in PARTS]
            transplant.defer(names, partial(_merge, transplant, name, layer.heads, kv_heads, roots))
    transplant.keep_rest()
    return transplant


def _white(had: Shapes, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Roots as of `_moments`, of inputs without correlations."""
    x, y = (torch.eye(had[f"{name}.{part}.weight"][1], dtype=torch.float64) for part in ("to_q", "to_k"))
    return x, y, y


def _merge(transplant: Transplant, name: str, heads: int, kv_heads: int, roots: tuple[Tensor, ...] | None) -> None:
    old = {part: transplant.old[f"{name}.{part}.weight"] for part in PARTS}
    like = old["to_q"].dtype
    q, k, v = (old[part].double().unflatten(0, (heads, -1)) for part in PARTS[:3])
    out = old["to_out.0"].double().unflatten(1, (heads, -1))
    merged: list[tuple[Tensor, ...]] = []
    for share in torch.arange(heads).chunk(kv_heads):
        parts = q[share], k[share], v[share], out[:, share]
        merged.append(merge_mean(*parts) if roots is None else merge_svd(*parts, *roots))
    new_q, new_k, new_v = (torch.cat([m[i] for m in merged]) for i in range(3))
    new_out = torch.cat([m[3] for m in merged], dim=1)
    repeat = heads // kv_heads
    error_logits = product_error((new_q, new_k.repeat_interleave(repeat, 0)), (q, k))
    by_head = new_out.permute(1, 2, 0), new_v.repeat_interleave(repeat, 0)
    error_values = product_error(by_head, (out.permute(1, 2, 0), v))
    method = "mean of heads" if roots is None else "truncated SVD over heads"
    for part, tensor, error in (
        ("to_q", new_q, error_logits),
        ("to_k", new_k, error_logits),
        ("to_v", new_v, error_values),
    ):
        source = [f"{name}.{p}.weight" for p in (("to_q", "to_k") if part != "to_v" else ("to_v", "to_out.0"))]
        transplant.put(f"{name}.{part}.weight", tensor.flatten(0, 1).to(like), source, method, error)
    sources = [f"{name}.to_v.weight", f"{name}.to_out.0.weight"]
    transplant.put(f"{name}.to_out.0.weight", new_out.flatten(1).to(like), sources, method, error_values)


def product_error(made: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> float:
    """Relative squared error of the matrices a_h^T b_h, given as (a_hdx, b_hdy), by d x d products alone:
    <a^T b, A^T B> = sum((a A^T) * (b B^T)). At full size an x by y matrix for each head would take gigabytes."""

    def inner(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
        return float(((one[0] @ other[0].mT) * (one[1] @ other[1].mT)).sum())

    norm = inner(wanted, wanted)
    gap = inner(made, made) - 2 * inner(made, wanted) + norm
    return max(gap, 0.0) / norm if norm > 0 else float(gap > 0)


def _moments(draft: Draft, bench: Bench) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Per layer: square roots of the second moments of the queries' input, and of the keys' input centred within each
    sample and as it is."""
    layers = attentions(bench.network(draft))
    sums: dict[str, list[Tensor]] = {}

    def listener(name: str, centre: bool) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x_btd = args[0].double()
            if centre:
                x_btd = x_btd - x_btd.mean(dim=1, keepdim=True)
            moment = torch.einsum("btd,bte->de", x_btd, x_btd) / x_btd[..., 0].numel()
            sums.setdefault(name, []).append(moment)

        return hook

    handles = []
    for name, layer in layers.items():
        handles.append(layer.to_q.register_forward_pre_hook(listener(f"{name}/x", False)))
        handles.append(layer.to_k.register_forward_pre_hook(listener(f"{name}/centred", True)))
        handles.append(layer.to_v.register_forward_pre_hook(listener(f"{name}/y", False)))
    try:
        bench.show(draft, "moments of keys and values")
    finally:
        for handle in handles:
            handle.remove()
    roots = {name: _root(torch.stack(moments).mean(0)) for name, moments in sums.items()}
    return {name: (roots[f"{name}/x"], roots[f"{name}/centred"], roots[f"{name}/y"]) for name in layers}


def _root(moment: Tensor) -> Tensor:
    """Symmetric square root, with a floor so that directions without activations keep their weights."""
    energy = moment.diagonal().mean()
    floor = torch.where(energy > 0, 1e-3 * energy, 1.0)  # a single token, centred, is nothing: then all weigh alike
    values, vectors = torch.linalg.eigh(moment + floor * torch.eye(len(moment), dtype=moment.dtype))
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


MULTI_QUERY = Operator(
    "multi_query",
    "one key/value head",
    lambda spec, goal: replace(spec, kv_heads=goal.kv_heads),
    _transplant,
)
