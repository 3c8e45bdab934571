"""Width: keep the best channels, heads and neurons of every dependency group, down to the new spec's widths."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from compress.pruning.criteria import Refit
from compress.pruning.groups import DIMENSION, HEAD, Group, find_groups, within_heads
from compress.pruning.importance import unit_scores
from compress.pruning.select import cut, keep_best, slices
from compress.pruning.surgery.base import Bench, Draft, Operator, begin
from students.init import Transplant, relative_error, squared_norm
from students.spec import StudentSpec

TIME_IN = "time_embedding.linear_1"


def narrow(name: str, draft: Draft, spec: StudentSpec, bench: Bench) -> Transplant:
    """Slices the draft into a network of `spec`, which may differ in widths, heads and FFN size only.

    A tensor's relative error is the share of its squared norm that was cut away, or of its output's energy where the
    criterion lets its remaining inputs make up for the others.
    """
    transplant = begin(name, draft, spec)
    neurons_only = (draft.spec.widths, draft.spec.heads) == (spec.widths, spec.heads)
    groups = [_as_cut(group, draft.spec, spec) for group in find_groups(draft.spec, neurons_only)]
    kept = {group.name: _choose(group, transplant, draft, bench) for group in groups}
    places = slices(groups, kept)
    softer = {f"{group.name}.to_q.weight": (len(kept[group.name]) / group.units) ** 0.5 for group in _thinned(groups)}
    for tensor_name, wanted in transplant.wanted.items():
        had = transplant.had[tensor_name]
        shape = torch.Size(len(places.get((tensor_name, axis), range(extent))) for axis, extent in enumerate(had))
        if shape == had:
            transplant.rename(tensor_name, tensor_name)
        elif shape == wanted:
            scale = softer.get(tensor_name, 1.0)
            transplant.defer([tensor_name], partial(_cut_one, transplant, tensor_name, places, draft, bench, scale))
    if transplant.wanted[f"{TIME_IN}.weight"][1] != transplant.had[f"{TIME_IN}.weight"][1]:
        _resample_time(transplant, places)
    for place, entries in places.items():
        if place[1] == 0 and len(entries) < transplant.had[place[0]][0]:
            earlier = bench.lineage.channels.get(place)
            bench.lineage.channels[place] = entries if earlier is None else earlier[entries]
    bench.report.setdefault("kept", {})[name] = {
        group.name: _summary(group, kept[group.name], draft, bench) for group in groups
    }
    return transplant


def _as_cut(group: Group, had: StudentSpec, wanted: StudentSpec) -> Group:
    """Heads are dropped whole where the student has fewer, and thinned where it has as many in a narrower stage."""
    if group.kind != HEAD or had.heads != wanted.heads or had.widths == wanted.widths:
        return group
    return within_heads(group)


def _thinned(groups: list[Group]) -> list[Group]:
    """Attentions whose heads become thinner. Softmax divides logits by the root of a head's width, which the queries
    have to make up for: fewer products of the size that they had would otherwise count for more."""
    return [group for group in groups if group.kind == DIMENSION]


def _cut_one(
    transplant: Transplant,
    name: str,
    places: dict[tuple[str, int], Tensor],
    draft: Draft,
    bench: Bench,
    scale: float = 1.0,
) -> None:
    old = transplant.old[name]
    new, refit = _fitted_cut(old, name, places, draft, bench)
    method = "sliced " + "x".join(f"{b}/{a}" for a, b in zip(old.shape[:2], new.shape[:2], strict=True) if a != b)
    if refit is None:
        lost = 1 - squared_norm(new) / max(squared_norm(old), 1e-300)
    else:
        method, lost = f"{method}, made up for ({refit.error_sliced:.3g} without)", refit.error_refitted
    transplant.put(name, new if scale == 1 else new * scale, [name], method, lost)


def _fitted_cut(
    old: Tensor, name: str, places: dict[tuple[str, int], Tensor], draft: Draft, bench: Bench
) -> tuple[Tensor, Refit | None]:
    """The tensor with its kept entries only, and how well it makes up for lost inputs where the criterion knows how."""
    kept = places.get((name, 1))
    lossy = kept is not None and len(kept) < old.shape[1]
    refit = bench.refit(draft, name, kept) if lossy and kept is not None else None
    if refit is None:
        return cut(old, name, places), None
    return cut(refit.weight, name, {place: entries for place, entries in places.items() if place[1] == 0}), refit


def _choose(group: Group, transplant: Transplant, draft: Draft, bench: Bench) -> Tensor:
    first = group.members[0]
    count = transplant.wanted[first.parameter][first.axis] // group.unit_size
    if count > group.units:
        raise ValueError(f"{group.name} has {group.units} units and cannot grow to {count}")
    if count == group.units:
        return torch.arange(group.units)
    return keep_best(unit_scores(group, bench.saliency(draft)), count, group.norm_groups)


def _summary(group: Group, kept: Tensor, draft: Draft, bench: Bench) -> dict[str, object]:
    """What the report's heat map shows: how many units stayed, and how much of the group's importance with them."""
    row: dict[str, object] = {"kind": group.kind, "units": group.units, "kept": len(kept), "score_share": 1.0}
    if len(kept) < group.units:
        scores = unit_scores(group, bench.saliency(draft))
        row["score_share"] = float(scores[kept].sum() / scores.sum().clamp_min(1e-300))
        row["units_kept"] = kept.tolist()
    return row


def _resample_time(transplant: Transplant, places: dict[tuple[str, int], Tensor]) -> None:
    """A narrower first stage comes with a shorter sinusoid; its first layer is refitted so that the embedding of every
    timestep in 0..1000 changes least (ridge regression on both sinusoids and a constant)."""
    from diffusers.models.embeddings import get_timestep_embedding

    weight = cut(transplant.old[f"{TIME_IN}.weight"], f"{TIME_IN}.weight", places).double()
    bias = cut(transplant.old[f"{TIME_IN}.bias"], f"{TIME_IN}.bias", places).double()
    steps = torch.arange(0, 1001, dtype=torch.float32)

    def features(dim: int) -> Tensor:
        wave = get_timestep_embedding(steps, dim, flip_sin_to_cos=True, downscale_freq_shift=0).double()
        return torch.cat([wave, torch.ones(len(steps), 1, dtype=torch.float64)], dim=1)

    old, new = features(weight.shape[1]), features(transplant.wanted[f"{TIME_IN}.weight"][1])
    wanted = old @ torch.cat([weight, bias[:, None]], dim=1).T
    gram = new.T @ new
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    fit = torch.linalg.solve(gram + ridge, new.T @ wanted)
    error = relative_error(new @ fit, wanted)
    like = transplant.old[f"{TIME_IN}.weight"].dtype
    sources = [f"{TIME_IN}.weight", f"{TIME_IN}.bias"]
    transplant.put(f"{TIME_IN}.weight", fit[:-1].T.to(like), sources, "refitted to the shorter sinusoid", error)
    transplant.put(f"{TIME_IN}.bias", fit[-1].to(like), sources, "refitted to the shorter sinusoid", error)


WIDTH = Operator(
    "width",
    "narrower stages",
    lambda spec, goal: replace(spec, widths=goal.widths, heads=goal.heads, heads_fixed=goal.heads_fixed),
    lambda draft, spec, bench: narrow("width", draft, spec, bench),
)
FEED_FORWARD = Operator(
    "feed_forward",
    "smaller feed-forward",
    lambda spec, goal: replace(spec, ff_mult=goal.ff_mult),
    lambda draft, spec, bench: narrow("feed_forward", draft, spec, bench),
)
