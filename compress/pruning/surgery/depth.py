"""Depth: drop whole layers (a residual block and a transformer), transformer blocks, and the middle block.

Which of them stay is a rule's decision (compress/pruning/criteria/layers.py): by default it goes by the velocity error
when a layer alone is skipped, or by the sum of its scores where the criterion looks at no data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from compress.pruning.criteria import CRITERIA, LAYER_RULES
from compress.pruning.criteria.layers import Choice, Layers, LayerTask, subsets
from compress.pruning.surgery.base import Bench, Draft, Operator, begin, block_name, copy_tree, layers_of
from students.init import Transplant
from students.spec import NONE, SELF_CROSS, StudentSpec

MIDDLE = "mid_block.attentions.0"


def _target(spec: StudentSpec, goal: StudentSpec) -> StudentSpec:
    middle = goal.middle if goal.middle == NONE else spec.middle  # a block can go, it cannot come
    return replace(
        spec,
        layers_per_block=goal.layers_per_block,
        transformer_layers=goal.transformer_layers,
        down_depths=goal.down_depths,
        up_depths=goal.up_depths,
        middle=middle,
        plain=goal.plain and spec.plain,
    )


def _transplant(draft: Draft, spec: StudentSpec, bench: Bench) -> Transplant:
    transplant = begin("depth", draft, spec)
    choices = [*_layer_choices(draft, spec, transplant), *_block_choices(draft, spec)]
    chosen = _decide(choices, draft, bench)
    kept: dict[str, list[int]] = {}
    for modules, side, stage in _lists(spec):
        have = layers_of(draft.spec, side, stage)
        layers = chosen.get(modules, tuple(range(have)))
        kept[modules] = list(layers)
        bench.lineage.keep(modules, list(layers), have)
        for new, old in enumerate(layers):
            if modules.endswith("attentions"):
                kept |= _move_blocks(transplant, f"{modules}.{new}", f"{modules}.{old}", draft, chosen, bench)
            copy_tree(transplant, f"{modules}.{new}", f"{modules}.{old}", transplant.had)
    if spec.middle == SELF_CROSS:
        kept |= _move_blocks(transplant, MIDDLE, MIDDLE, draft, chosen, bench)
    transplant.keep_rest()
    bench.report["depth"] = kept
    return transplant


def _decide(choices: list[Choice], draft: Draft, bench: Bench) -> dict[str, Layers]:
    if not choices:
        return {}
    rule = bench.layer_rule or ("laptop" if CRITERIA[bench.criterion].looks else "weights")
    task = LayerTask(
        lambda: bench.network(draft), bench.batches, bench.generator, lambda: bench.saliency(draft), bench.watch
    )
    return LAYER_RULES[rule](choices, task)


def _lists(spec: StudentSpec) -> Iterator[tuple[str, str, int]]:
    """(module list, side, stage) of all residual blocks and transformers on the way down and up."""
    for side in ("down", "up"):
        for stage in range(spec.stages):
            for kind in ("resnets", "attentions"):
                if kind == "resnets" or getattr(spec, f"{side}_attention")[stage] != NONE:
                    yield f"{block_name(spec, side, stage)}.{kind}", side, stage


def _layer_choices(draft: Draft, spec: StudentSpec, transplant: Transplant) -> Iterator[Choice]:
    """The first and, going up, the last residual block have shapes of their own (they meet another stage's width), so
    only subsets whose blocks fit the places they move to are legal."""
    for modules, side, stage in _lists(spec):
        have, want = layers_of(draft.spec, side, stage), layers_of(spec, side, stage)
        if want > have:
            raise ValueError(f"{modules} has {have} layers and cannot grow to {want}")
        if want == have:
            continue
        name = "norm1.weight" if modules.endswith("resnets") else "norm.weight"
        had, wanted = transplant.had, transplant.wanted
        legal = tuple(
            option
            for option in subsets(have, want)
            if all(
                had[f"{modules}.{layer}.{name}"] == wanted[f"{modules}.{new}.{name}"]
                for new, layer in enumerate(option)
            )
        )
        if not legal:
            raise ValueError(f"no way to keep {want} of {have} layers of {modules}")
        yield Choice(modules, have, legal)


def _block_choices(draft: Draft, spec: StudentSpec) -> Iterator[Choice]:
    stacks = [(MIDDLE, draft.spec.middle_depth, spec.middle_depth)] if spec.middle == SELF_CROSS else []
    for modules, side, stage in _lists(spec):
        if modules.endswith("attentions"):
            had, wanted = draft.spec.depths(side, stage), spec.depths(side, stage)
            if len(had) != len(wanted) and len(set(wanted)) > 1:
                raise ValueError(f"{modules} loses layers, and those that stay are to differ in depth: {wanted}")
            wants = wanted if len(had) == len(wanted) else wanted[:1] * len(had)
            stacks += [(f"{modules}.{layer}", *pair) for layer, pair in enumerate(zip(had, wants, strict=True))]
    for transformer, have, want in stacks:
        if want > have:
            raise ValueError(f"{transformer} has {have} transformer blocks and cannot grow to {want}")
        if want < have:
            yield Choice(f"{transformer}.transformer_blocks", have, subsets(have, want))


def _move_blocks(
    transplant: Transplant, new: str, old: str, draft: Draft, chosen: dict[str, Layers], bench: Bench
) -> dict[str, list[int]]:
    """Renumbers the transformer blocks that stay of one transformer; returns {its name: their old numbers}."""
    stack = f"{old}.transformer_blocks"
    have = sum(name.startswith(f"{stack}.") and name.endswith(".norm1.weight") for name in transplant.had)
    blocks = list(chosen.get(stack, tuple(range(have))))
    bench.lineage.keep(f"{new}.transformer_blocks", blocks, have)
    for position, block in enumerate(blocks):
        copy_tree(transplant, f"{new}.transformer_blocks.{position}", f"{stack}.{block}", transplant.had)
    return {stack: blocks}


DEPTH = Operator("depth", "fewer layers and transformer blocks", _target, _transplant)
