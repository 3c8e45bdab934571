"""Which layers and transformer blocks stay: rules, each of which answers all choices of a network at once.

A score for every layer gives a rule by `by_score`: the subset with the largest sum stays. BK-SDM and KOALA are patterns
that look at nothing. LAPTOP-Diff (arXiv 2404.11098) scores a layer by the output error when it alone is skipped; the
errors of several skipped layers nearly add up, so a knapsack over parameters finds the best mix of depths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import torch
from torch import nn

from compress.pruning.calibration import Noised, Watch, predictions, unwatched, velocity_mse
from compress.pruning.importance import Saliency
from compress.pruning.select import Option, best_subset, cheapest_mix
from students.spec import NONE, SELF_CROSS, StudentSpec

Layers = tuple[int, ...]


@dataclass(frozen=True)
class Choice:
    """Of the `have` entries of a module list, one of the `legal` subsets stays; all of them are of one size."""

    modules: str  # "up_blocks.1.resnets", "mid_block.attentions.0.transformer_blocks"
    have: int
    legal: tuple[Layers, ...]

    @property
    def want(self) -> int:
        return len(self.legal[0])


@dataclass(frozen=True)
class LayerTask:
    """What a rule may look at. The network is read into memory, and `saliency` computed, when called."""

    network: Callable[[], nn.Module]
    batches: Sequence[Noised]
    generator: torch.Generator
    saliency: Callable[[], Saliency]
    watch: Watch = unwatched


LayerRule = Callable[[Sequence[Choice], LayerTask], dict[str, Layers]]


def subsets(have: int, want: int) -> tuple[Layers, ...]:
    """All ways to keep `want` of `have` layers, in order."""
    return tuple(combinations(range(have), want))


def by_score(score: Callable[[str], float], choices: Sequence[Choice]) -> dict[str, Layers]:
    """For each choice the legal subset with the largest sum of scores."""
    return {
        choice.modules: best_subset(
            [score(f"{choice.modules}.{layer}") for layer in range(choice.have)], choice.want, choice.legal
        )
        for choice in choices
    }


def by_weights(choices: Sequence[Choice], task: LayerTask) -> dict[str, Layers]:
    """Keeps the layers with the largest sum of the criterion's scores."""
    return by_score(task.saliency().layer, choices)


def laptop(choices: Sequence[Choice], task: LayerTask) -> dict[str, Layers]:
    """Keeps the layers whose absence shows most (LAPTOP-Diff's one-shot criterion, arXiv 2404.11098:
    E|v_without - v|^2, here on the first batch)."""
    error = skip_errors(task.network(), task.batches[:1])
    done = task.watch("skipping layers", sum(choice.have for choice in choices))

    def watched(layer: str) -> float:
        found = error(layer)
        done()
        return found

    return by_score(watched, choices)


def bk_sdm(choices: Sequence[Choice], task: LayerTask) -> dict[str, Layers]:
    """BK-SDM's hand-made block removal (arXiv 2305.15798): going down the first layers of a stage stay, going up the
    last one does too, since it meets the skip of another stage. Transformer blocks, of which BK-SDM's teacher has one
    each, stay at even spacing, as TinyFusion (arXiv 2412.01199) reads the rule for deeper stacks."""
    return {choice.modules: _nearest(_even if _is_stack(choice) else _ends, choice) for choice in choices}


def koala(choices: Sequence[Choice], task: LayerTask) -> dict[str, Layers]:
    """KOALA's removal of blocks and layers for SDXL (arXiv 2312.04005): layers as in BK-SDM; of each stack of
    transformer blocks the first ones stay, which the students there inherit by number (depth 10 -> 6 or 5)."""
    return {choice.modules: _nearest(_first if _is_stack(choice) else _ends, choice) for choice in choices}


def _is_stack(choice: Choice) -> bool:
    return choice.modules.endswith("transformer_blocks")


def _first(choice: Choice) -> list[int]:
    return list(range(choice.want))


def _even(choice: Choice) -> list[int]:
    return [position * choice.have // choice.want for position in range(choice.want)]


def _ends(choice: Choice) -> list[int]:
    if choice.modules.startswith("up_blocks") and choice.want > 1:
        return [*range(choice.want - 1), choice.have - 1]
    return _first(choice)


def _nearest(pattern: Callable[[Choice], list[int]], choice: Choice) -> Layers:
    """The legal subset that shares most layers with the pattern; of several the first."""
    wanted = set(pattern(choice))
    return max(choice.legal, key=lambda option: len(wanted & set(option)))


def skip_errors(unet: nn.Module, batches: Sequence[Noised]) -> Callable[[str], float]:
    """A function from a layer's name to the velocity error when that layer alone is skipped."""
    whole = predictions(unet, batches)

    def error(name: str) -> float:
        with skipped(unet.get_submodule(name)):
            return velocity_mse(unet, batches, whole)

    return error


@contextmanager
def skipped(layer: nn.Module) -> Iterator[None]:
    """While open, the layer passes on what it was given: its residual branch is silent."""

    def hook(module: Any, args: tuple[Any, ...], output: Any) -> Any:
        x = shortcut(module, args[0])
        return (x,) if isinstance(output, tuple) else x

    with torch.no_grad():
        handle = layer.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


def shortcut(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """What a layer adds its residual branch to."""
    return layer.conv_shortcut(x) if getattr(layer, "conv_shortcut", None) is not None else x


def plan_depth(
    spec: StudentSpec, parameters: Callable[[StudentSpec], int], error: Callable[[str], float], limit: int
) -> StudentSpec:
    """LAPTOP-Diff's knapsack (arXiv 2404.11098, by the additivity of its criterion): the depths with the least sum of
    skip errors whose network has at most `limit` parameters. Each stage chooses its layers and its transformer blocks,
    which one spec gives to its way down, its way up and (the lowest stage) the middle alike.

    Raises ValueError, with the least that is possible, where no depths meet the limit, and for a network whose depths
    differ from layer to layer: one number a stage cannot say what each of them keeps.
    """
    if spec.down_depths is not None:
        raise ValueError("depths differ from layer to layer; give the depths that are to stay")
    known: dict[str, float] = {}

    def remembered(name: str) -> float:
        return known.setdefault(name, error(name)) if name not in known else known[name]

    whole = parameters(spec)
    stages = [list(_depths(spec, stage, parameters, whole, remembered)) for stage in range(spec.stages)]
    picked = cheapest_mix([[option for _, option in depths] for depths in stages], limit - whole)
    chosen = [depths[index][0] for depths, index in zip(stages, picked, strict=True)]
    layers, blocks = zip(*chosen, strict=True)
    return replace(spec, layers_per_block=layers, transformer_layers=blocks)


def _depths(
    spec: StudentSpec,
    stage: int,
    parameters: Callable[[StudentSpec], int],
    whole: int,
    error: Callable[[str], float],
) -> Iterator[tuple[tuple[int, int], Option]]:
    """((layers, blocks), (error, parameters gained, which is negative)) for all depths of one stage."""
    for layers in range(1, spec.layers_per_block[stage] + 1):
        for blocks in range(1, spec.transformer_layers[stage] + 1):
            thinner = replace(
                spec,
                layers_per_block=_with(spec.layers_per_block, stage, layers),
                transformer_layers=_with(spec.transformer_layers, stage, blocks),
            )
            cost = sum(_least_error(lists, keep, error) for lists, keep in _lists(spec, stage, layers, blocks))
            yield (layers, blocks), (cost, parameters(thinner) - whole)


def _lists(spec: StudentSpec, stage: int, layers: int, blocks: int) -> Iterator[tuple[list[str], int]]:
    """(names of the layers of one list, how many of them stay) for every list that a stage's depths shorten."""
    for side, at, extra in (("down", stage, 0), ("up", spec.stages - 1 - stage, 1)):
        have = spec.layers_per_block[stage] + extra
        kinds = ("resnets",) if getattr(spec, f"{side}_attention")[stage] == NONE else ("resnets", "attentions")
        for kind in kinds:
            name = f"{side}_blocks.{at}.{kind}"
            yield [f"{name}.{layer}" for layer in range(have)], layers + extra
            if kind == "attentions":
                for layer in range(have):
                    stack = f"{name}.{layer}.transformer_blocks"
                    yield [f"{stack}.{block}" for block in range(spec.transformer_layers[stage])], blocks
    if stage == spec.stages - 1 and spec.middle == SELF_CROSS:
        stack = "mid_block.attentions.0.transformer_blocks"
        yield [f"{stack}.{block}" for block in range(spec.transformer_layers[stage])], blocks


def _least_error(names: list[str], keep: int, error: Callable[[str], float]) -> float:
    return sum(sorted(error(name) for name in names)[: len(names) - keep]) if keep < len(names) else 0.0


def _with(values: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    return (*values[:place], value, *values[place + 1 :])
