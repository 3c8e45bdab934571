"""The energy that a weight lets through: Wanda (Sun et al., arXiv 2306.11695), squared."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress.pruning.criteria.base import Criterion, Waiting, is_depthwise, readers, rows
from compress.pruning.importance import Saliency


class Activation(Criterion):
    """Squared weight times the mean square of the input that it meets (the paper's |W| |X|, squared).

    Summed over a row it is the energy of that output, had its inputs been uncorrelated.
    """

    sees_inputs = True

    def __init__(self, unet: nn.Module, generator: torch.Generator) -> None:
        super().__init__(unet, generator)
        self.readers = readers(unet)
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.waiting = Waiting(self._add_up)

    def see_input(self, layer: str, x: Tensor, sigma_b: Tensor) -> None:
        self.waiting.put(layer, rows(x.detach()).flatten(0, 1))

    def _add_up(self, layer: str, x_nf: Tensor) -> None:
        energy_f = x_nf.float().square().sum(0)
        self.sums[layer] = self.sums[layer].add_(energy_f) if layer in self.sums else energy_f
        self.counts[layer] = self.counts.get(layer, 0) + len(x_nf)

    def energy(self, layer: str) -> Tensor:
        """Mean square of each channel that enters a layer."""
        self.waiting.flush(layer)
        return self.sums[layer] / self.counts[layer]

    def saliency(self) -> Saliency:
        saliency = Saliency()
        for layer in self.readers:
            self.waiting.flush(layer)
            if layer not in self.sums:
                continue  # not reached by any forward
            weight = self.parameters[f"{layer}.weight"].float()
            shape = (-1, 1) if is_depthwise(self.readers[layer]) else (1, -1)
            per_input = self.energy(layer).reshape(*shape, *[1] * (weight.dim() - 2))
            saliency.add(f"{layer}.weight", weight.square() * per_input)
        return saliency
