"""The text projection of DreamLite (`text_proj_rms`: Linear, then RMSNorm), and the width that keys and values read.

Where the text's width is the teacher's own, the linear part starts as the identity and RMSNorm's scale is the
least-squares fit that undoes the division by the token's root mean square, channel by channel; last hidden states come
out of a LayerNorm, so their root mean square hardly varies and little is lost. A wider context repeats text channels
(keys and values read the repeats with weight zero, and learn to use them); a narrower one keeps the principal
directions of the calibration tokens. Without tokens, all are taken to have a root mean square of 1.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from compress.errors import UserError
from compress.pruning.surgery.base import Bench, Draft, Operator, begin
from students.init import Transplant, relative_error
from students.spec import StudentSpec

WHISPER = 1 / 16  # how loud repeats are before RMSNorm: heard by what reads them, not by the mean square
EPS = 1e-5  # of the projection's RMSNorm in diffusers


def _transplant(draft: Draft, spec: StudentSpec, bench: Bench) -> Transplant:
    transplant = begin("text_projection", draft, spec)
    if spec.text_dim is None:
        raise ValueError("the goal has no text projection")
    _same_text(draft, spec, bench)
    map_cd, scale_c, error = _projected(spec.text_dim, spec.cross_dim, bench)
    like = next(iter(transplant.old.values())).dtype
    method = "identity" if spec.cross_dim == spec.text_dim else "text channels repeated or projected"
    transplant.fresh("encoder_hid_proj.0.weight", map_cd.to(like), method)
    transplant.fresh("encoder_hid_proj.0.bias", torch.zeros(spec.cross_dim, dtype=like), "zero")
    fitted = "scale fitted to the tokens" if bench.batches else "scale of tokens of unit root mean square"
    transplant.put("encoder_hid_proj.1.weight", scale_c.to(like), [], fitted, error)
    if spec.cross_dim != draft.spec.cross_dim:
        back_dc = _back(map_cd).to(like)
        for name in transplant.wanted:
            if name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")):
                transplant.defer([name], partial(_follow, transplant, name, back_dc, error))
    transplant.keep_rest()
    return transplant


def _same_text(draft: Draft, spec: StudentSpec, bench: Bench) -> None:
    """UserError unless the student's text is the teacher's."""
    width = bench.batches[0].condition.tokens_btd.shape[2] if bench.batches else draft.spec.text_dim
    width = draft.spec.cross_dim if width is None else width
    if width != spec.text_dim or draft.spec.text_dim not in (None, spec.text_dim):
        raise UserError.of(
            f"the student reads text of width {spec.text_dim}, the teacher's text encoder gives {width}",
            "stage 'prune', text_dim",
            "Use the teacher's text encoder (text_dim equal to its width); another one needs paired embeddings",
        )
    if draft.spec.text_dim is not None and draft.spec.cross_dim != spec.cross_dim:
        raise UserError.of(
            f"the context is to be {spec.cross_dim} wide, the teacher's own projection writes {draft.spec.cross_dim}",
            "stage 'prune', cross_dim",
            f"Use {draft.spec.cross_dim}: a trained projection is kept as it is",
        )


def _projected(text_dim: int, width: int, bench: Bench) -> tuple[Tensor, Tensor, float | None]:
    """(linear part map_cd, RMSNorm's scale_c, relative error of the context on the calibration tokens)."""
    if not bench.batches:
        map_cd = projection(torch.zeros(0, text_dim, dtype=torch.float64), width)
        mean_square = (text_dim + (width - text_dim) * WHISPER**2) / width
        scale_c = torch.full((width,), (mean_square + EPS) ** 0.5, dtype=torch.float64)
        scale_c[text_dim:] /= WHISPER
        return map_cd, scale_c, None
    tokens_nd = torch.cat([batch.condition.tokens_btd.flatten(0, 1) for batch in bench.batches]).double().cpu()
    map_cd = projection(tokens_nd, width)
    context_nc = tokens_nd @ map_cd.T
    wanted_nc = context_nc.clone()
    wanted_nc[:, text_dim:] /= WHISPER
    scale_c, error = fit_scale(context_nc, wanted_nc)
    return map_cd, scale_c, error


def _back(map_cd: Tensor) -> Tensor:
    """(d, c): from the context to the tokens; repeats are not read."""
    width, text_dim = map_cd.shape
    if width < text_dim:
        return torch.linalg.pinv(map_cd)
    return torch.eye(text_dim, width, dtype=torch.float64)


def _follow(transplant: Transplant, name: str, back_dc: Tensor, error: float | None) -> None:
    """Keys and values read the context as they read the tokens."""
    old = transplant.old[name]
    moved = old @ back_dc.to(old)
    transplant.put(name, moved, [name], "columns follow the projection", error)


def projection(tokens_nd: Tensor, width: int) -> Tensor:
    """(width, d): identity, identity with quiet repeats below, or the leading principal directions of the tokens.

    Raises UserError for a narrower context without tokens.
    """
    text_dim = tokens_nd.shape[1]
    if width >= text_dim:
        repeated_cd = torch.eye(text_dim, dtype=torch.float64)[torch.arange(width) % text_dim]
        repeated_cd[text_dim:] *= WHISPER
        return repeated_cd
    if len(tokens_nd) == 0:
        raise UserError.of(
            f"the context is to be {width} wide and the text {text_dim}, and there are no tokens to say what to drop",
            "stage 'prune', cross_dim",
            f"Use {text_dim} or more, or a criterion that looks at calibration samples",
        )
    _, vectors = torch.linalg.eigh(tokens_nd.T @ tokens_nd)
    return vectors.flip(1)[:, :width].T


def fit_scale(context_nc: Tensor, wanted_nc: Tensor) -> tuple[Tensor, float]:
    """(scale_c, relative squared error) of the RMSNorm that carries the rows of the context closest to the wanted."""
    unit_nc = context_nc * torch.rsqrt(context_nc.square().mean(1, keepdim=True) + EPS)
    scale_c = (unit_nc * wanted_nc).sum(0) / unit_nc.square().sum(0).clamp_min(1e-12)
    return scale_c, relative_error(unit_nc * scale_c, wanted_nc)


TEXT_PROJECTION = Operator(
    "text_projection",
    "projected text context",
    lambda spec, goal: replace(spec, text_dim=goal.text_dim, cross_dim=goal.cross_dim),
    _transplant,
)
