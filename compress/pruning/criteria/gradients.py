"""What the loss says about a weight: first order, second order, and first order where there is loss at all.

The loss is flow matching's, the mean squared error of the velocity.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.pruning.calibration import Noised
from compress.pruning.criteria.base import Criterion
from compress.pruning.importance import Saliency

LOSS_SHARE = 0.05  # Diff-Pruning's threshold T


class Taylor(Criterion):
    """|weight * gradient|, averaged over batches: the first-order change of the loss when a weight is set to zero
    (Molchanov et al., arXiv 1906.10771, their first-order importance without the square)."""

    sees_batches = True

    def prepare(self, batches: Sequence[Noised]) -> None:
        self.scores, self.batches = Saliency(), len(batches)

    def see_batch(self, name: str, gradient: Tensor, samples: int) -> None:
        self.scores.add(name, (self.parameters[name].float() * gradient).abs_().div_(self.batches))

    def saliency(self) -> Saliency:
        return self.scores


class Fisher(Criterion):
    """(weight * gradient)^2, averaged over single samples: the second-order change of the loss with the empirical
    Fisher matrix's diagonal for the Hessian (optimal brain damage's saliency, LeCun et al. 1990)."""

    sees_samples = True

    def prepare(self, batches: Sequence[Noised]) -> None:
        self.scores, self.samples = Saliency(), sum(len(batch.sigma_b) for batch in batches)

    def see_sample(self, name: str, gradient: Tensor) -> None:
        self.scores.add(name, (self.parameters[name].float() * gradient).square_().div_(self.samples))

    def saliency(self) -> Saliency:
        return self.scores


class DiffPruning(Criterion):
    """|weight * summed gradient|, over the noise levels that have something to learn from: Diff-Pruning (Fang et al.,
    arXiv 2305.10924, its informative Taylor expansion over pruned timesteps).

    The paper walks from the cleanest level to the noisiest, sums gradients, and leaves out what comes once a level's
    loss is below a share T of the largest so far. Here each sample has a level of its own and each batch is walked
    from its cleanest sample; so a sample is left out when its own loss is below that share. Unlike Taylor's, the sum
    is taken before the absolute value: levels that pull a weight in opposite directions cancel.
    """

    sees_samples = sees_batches = True

    def __init__(self, unet: nn.Module, generator: torch.Generator, loss_share: float = LOSS_SHARE) -> None:
        super().__init__(unet, generator)
        self.loss_share = loss_share
        self.largest_loss, self.counted = 0.0, False
        self.left_out: list[float] = []  # noise levels
        self.gradients: dict[str, Tensor] = {}

    def prepare(self, batches: Sequence[Noised]) -> None:
        self.samples = sum(len(batch.sigma_b) for batch in batches)

    def see_loss(self, loss: float, sigma: float) -> None:
        self.largest_loss = max(self.largest_loss, loss)
        self.counted = loss >= self.loss_share * self.largest_loss
        if not self.counted:
            self.left_out.append(sigma)

    def see_sample(self, name: str, gradient: Tensor) -> None:
        if not self.counted:  # batches bring all samples: take this one out again
            self._add(name, gradient, -1)

    def see_batch(self, name: str, gradient: Tensor, samples: int) -> None:
        self._add(name, gradient, samples)

    def _add(self, name: str, gradient: Tensor, times: int) -> None:
        if name in self.gradients:
            self.gradients[name].add_(gradient, alpha=times)
        else:
            self.gradients[name] = gradient * times if self.frugal else gradient.float() * times

    def saliency(self) -> Saliency:
        saliency = Saliency()
        for name, gradient in self.gradients.items():
            saliency.add(name, (self.parameters[name].float() * gradient).abs_().div_(self.samples))
        return saliency
