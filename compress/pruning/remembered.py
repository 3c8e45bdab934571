"""Scores that a criterion has given before: the same weights, samples and chance are not scored twice.

Trials of a sweep prune one network to many sizes, and learning which of its channels matter takes longer than that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.kept import Kept, digest
from compress.pruning.calibration import Noised
from compress.pruning.importance import Saliency

VERSION = 1  # to be raised when a criterion comes to score otherwise
_CHANCE = "chance"


class RememberedScores:
    """Saliency by everything that it follows from. The samples are those of one `Bench`."""

    def __init__(self, kept: Kept, batches: Sequence[Noised]) -> None:
        self.kept, self.batches = kept, batches

    def saliency(
        self, criterion: str, unet: nn.Module, generator: torch.Generator, make: Callable[[], Saliency]
    ) -> Saliency:
        """What the criterion says of the network, `make()` if it has not been asked before. The generator is left in
        the state that scoring leaves it in, either way."""
        tensors = {_CHANCE: generator.get_state(), **unet.state_dict()}
        for number, batch in enumerate(self.batches):
            tensors |= _tensors_of(batch, f"batch.{number}")
        config: Any = getattr(unet, "config", {})  # heads, for one, are not to be seen from the weights
        said = sorted(f"{key} {value}" for key, value in config.items() if not key.startswith("_"))  # paths, versions
        paired = [batch.paired for batch in self.batches]
        known = f"{VERSION} {criterion} {said} {paired} {digest(tensors)}"
        name = hashlib.sha256(known.encode()).hexdigest()

        def score() -> dict[str, Tensor]:
            along = make().along
            return {f"{axis} {parameter}": scores for (parameter, axis), scores in along.items()} | {
                _CHANCE: generator.get_state()
            }

        found = self.kept.tensors(f"{criterion}-{name[:32]}", score)
        generator.set_state(found.pop(_CHANCE))
        places = {place: place.split(" ", 1) for place in found}
        return Saliency({(parameter, int(axis)): found[place] for place, (axis, parameter) in places.items()})


def _tensors_of(value: Any, name: str) -> dict[str, Tensor]:
    """Every tensor in a dataclass of tensors and dataclasses, by its path."""
    if isinstance(value, Tensor):
        return {name: value}
    if not is_dataclass(value):
        return {}
    found: dict[str, Tensor] = {}
    for field in fields(value):
        found |= _tensors_of(getattr(value, field.name), f"{name}.{field.name}")
    return found
