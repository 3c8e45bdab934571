"""Criteria that look at no data: chance, and the size of the weights."""

from __future__ import annotations

import torch

from compress.pruning.criteria.base import Criterion
from compress.pruning.importance import Saliency


class Random(Criterion):
    """The control: scores that know nothing. Drawn per entry and heavy-tailed, so that sums differ between units."""

    looks = False

    def saliency(self) -> Saliency:
        saliency = Saliency()
        for name, parameter in self.parameters.items():
            saliency.add(name, torch.rand(parameter.shape, generator=self.generator).double().pow(-0.9))
        return saliency


class Magnitude(Criterion):
    """Squared weights (Han et al., arXiv 1506.02626). Norms and biases do not count: their scale is another."""

    looks = False

    def saliency(self) -> Saliency:
        saliency = Saliency()
        for name, parameter in self.parameters.items():
            if parameter.dim() > 1:
                saliency.add(name, parameter.float().square())
        return saliency
