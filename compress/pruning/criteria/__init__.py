"""Which channels, heads, neurons and layers matter. One file a family; `CRITERIA` and `LAYER_RULES` name them all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from compress.pruning.calibration import Noised
from compress.pruning.criteria.activation import Activation
from compress.pruning.criteria.base import Criterion, Refit
from compress.pruning.criteria.collect import gather
from compress.pruning.criteria.eco_diff import EcoDiff
from compress.pruning.criteria.gradients import DiffPruning, Fisher, Taylor
from compress.pruning.criteria.layers import LayerRule, bk_sdm, by_weights, koala, laptop
from compress.pruning.criteria.obs_diff import ObsDiff
from compress.pruning.criteria.tiny_fusion import tiny_fusion
from compress.pruning.criteria.weights import Magnitude, Random
from compress.pruning.importance import Saliency

CRITERIA: dict[str, type[Criterion]] = {
    "random": Random,
    "magnitude": Magnitude,
    "activation": Activation,
    "taylor": Taylor,
    "fisher": Fisher,
    "diff_pruning": DiffPruning,
    "obs_diff": ObsDiff,
    "eco_diff": EcoDiff,
}

LAYER_RULES: dict[str, LayerRule] = {
    "weights": by_weights,
    "laptop": laptop,
    "bk_sdm": bk_sdm,
    "koala": koala,
    "tiny_fusion": tiny_fusion,
}


def collect(
    unet: nn.Module, batches: Sequence[Noised], names: Iterable[str], generator: torch.Generator
) -> dict[str, Saliency]:
    """The scores of every named criterion, from one pass over the batches. The network is left as it was."""
    criteria = {name: CRITERIA[name](unet, generator) for name in names}
    gather(unet, batches, list(criteria.values()))
    return {name: criterion.saliency() for name, criterion in criteria.items()}


__all__ = ["CRITERIA", "LAYER_RULES", "Criterion", "Refit", "Saliency", "collect", "gather"]
