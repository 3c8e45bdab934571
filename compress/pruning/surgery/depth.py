"""Depth: drop whole layers (a residual block and a transformer) and transformer blocks.

The score of a layer is the velocity error when it alone is skipped, as in LAPTOP-Diff (arXiv 2404.11098); the errors of
several skipped layers nearly add up, so the subset with the largest sum is kept. The criteria that look at no data
("magnitude", "random") score a layer by its weights instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import nn

from compress.pruning.calibration import predictions, velocity_mse
from compress.pruning.importance import layer_score
from compress.pruning.lineage import Lineage
from compress.pruning.select import best_subset
from compress.pruning.surgery.base import Bench, Draft, Operator, begin, block_name, copy_tree, layers_of
from students.init import Transplant
from students.spec import NONE, StudentSpec

_BY_WEIGHTS = ("magnitude", "random")


def _target(spec: StudentSpec, goal: StudentSpec) -> StudentSpec:
    return replace(spec, layers_per_block=goal.layers_per_block, transformer_layers=goal.transformer_layers)


def _transplant(draft: Draft, spec: StudentSpec, bench: Bench) -> Transplant:
    transplant = begin("depth", draft, spec)
    score = _scorer(draft, bench)
    kept: dict[str, list[int]] = {}
    old_names = transplant.old
    for side in ("down", "up"):
        for stage in range(spec.stages):
            block = block_name(spec, side, stage)
            for kind in ("resnets", "attentions"):
                if kind == "attentions" and getattr(spec, f"{side}_attention")[stage] == NONE:
                    continue
                layers = _keep_layers(draft, spec, side, stage, kind, score, transplant)
                kept[f"{block}.{kind}"] = list(layers)
                bench.lineage.keep(f"{block}.{kind}", list(layers), layers_of(draft.spec, side, stage))
                for new, old in enumerate(layers):
                    new_name, old_name = f"{block}.{kind}.{new}", f"{block}.{kind}.{old}"
                    if kind == "attentions":
                        kept |= _move_blocks(
                            transplant, new_name, old_name, draft, spec.transformer_layers[stage], score, bench.lineage
                        )
                    copy_tree(transplant, new_name, old_name, old_names)
    middle = "mid_block.attentions.0"
    kept |= _move_blocks(transplant, middle, middle, draft, spec.transformer_layers[-1], score, bench.lineage)
    transplant.keep_rest()
    bench.report["depth"] = kept
    return transplant


def _keep_layers(
    draft: Draft,
    spec: StudentSpec,
    side: str,
    stage: int,
    kind: str,
    score: Callable[[str], float],
    transplant: Transplant,
) -> tuple[int, ...]:
    """Which layers of a block stay. The first and, going up, the last residual block have shapes of their own (they
    meet another stage's width), so only subsets whose blocks fit the places they move to are considered."""
    block = block_name(spec, side, stage)
    have, want = layers_of(draft.spec, side, stage), layers_of(spec, side, stage)
    if want >= have:
        if want > have:
            raise ValueError(f"{block} has {have} layers and cannot grow to {want}")
        return tuple(range(have))
    name = "norm1.weight" if kind == "resnets" else "norm.weight"
    legal = [
        option
        for option in combinations(range(have), want)
        if all(
            transplant.old[f"{block}.{kind}.{old}.{name}"].shape == transplant.wanted[f"{block}.{kind}.{new}.{name}"]
            for new, old in enumerate(option)
        )
    ]
    return best_subset([score(f"{block}.{kind}.{layer}") for layer in range(have)], want, legal)


def _move_blocks(
    transplant: Transplant,
    new: str,
    old: str,
    draft: Draft,
    want: int,
    score: Callable[[str], float],
    lineage: Lineage,
) -> dict[str, list[int]]:
    """Renumbers the transformer blocks that stay of one transformer; returns {its name: their old numbers}."""
    blocks: Any = draft.unet.get_submodule(f"{old}.transformer_blocks")
    have = len(blocks)
    if want > have:
        raise ValueError(f"{old} has {have} transformer blocks and cannot grow to {want}")
    layers = tuple(range(have))
    if want < have:
        layers = best_subset([score(f"{old}.transformer_blocks.{layer}") for layer in layers], want)
    lineage.keep(f"{new}.transformer_blocks", list(layers), have)
    for position, layer in enumerate(layers):
        copy_tree(
            transplant, f"{new}.transformer_blocks.{position}", f"{old}.transformer_blocks.{layer}", transplant.old
        )
    return {f"{old}.transformer_blocks": list(layers)}


def _scorer(draft: Draft, bench: Bench) -> Callable[[str], float]:
    if bench.criterion in _BY_WEIGHTS:
        return lambda name: layer_score(name, bench.saliency(draft))
    batches = bench.batches[:1]
    whole = predictions(draft.unet, batches)

    def by_skipping(name: str) -> float:
        with skipped(draft.unet.get_submodule(name)):
            return velocity_mse(draft.unet, batches, whole)

    return by_skipping


@contextmanager
def skipped(layer: nn.Module) -> Iterator[None]:
    """While open, the layer passes on what it was given: its residual branch is silent."""

    def hook(module: Any, args: tuple[Any, ...], output: Any) -> Any:
        x = args[0]
        if getattr(module, "conv_shortcut", None) is not None:
            x = module.conv_shortcut(x)
        return (x,) if isinstance(output, tuple) else x

    with torch.no_grad():
        handle = layer.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


DEPTH = Operator("depth", "fewer layers and transformer blocks", _target, _transplant)
