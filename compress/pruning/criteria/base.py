"""What a criterion is: it sees samples go through a network, and then scores the network's weights.

All criteria that learn from data are fed by one pass over the calibration samples (see collect.py), whichever of them
are wanted: each says what it wants to see, and what several want is computed once.
Shape suffixes: b batch, n positions (pixels or tokens), f features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from compress.pruning.calibration import Noised
from compress.pruning.importance import Saliency


@dataclass(frozen=True)
class Refit:
    """A weight with fewer inputs whose remaining entries make up for the others; the relative squared error of its
    output without and with that change."""

    weight: Tensor
    error_sliced: float
    error_refitted: float


class Criterion:
    """One way of scoring. Subclasses set what they want to see and override the methods that go with it.

    The network is frozen and stays as it is. Scores are never negative, and comparable within one network.
    """

    sees_inputs: ClassVar[bool] = False  # what enters every convolution and linear layer
    sees_samples: ClassVar[bool] = False  # the loss's gradient for each single sample
    sees_batches: ClassVar[bool] = False  # the same, averaged over a batch
    looks: ClassVar[bool] = True  # False for criteria that need no data at all
    refits: ClassVar[bool] = False  # True for those whose `refit` rests on what they have seen
    frugal = False  # the network fills the memory: what the samples leave behind has to be small
    rounds = 1  # how often the samples pass: a frugal criterion may look at some of the layers each time

    def __init__(self, unet: nn.Module, generator: torch.Generator) -> None:
        self.unet, self.generator = unet, generator
        self.parameters = {name: p.detach() for name, p in unet.named_parameters()}

    def prepare(self, batches: Sequence[Noised]) -> None:
        """Called once before the first round, with everything that each will go over."""

    def end_round(self) -> None:
        """Called after each round."""

    def see_input(self, layer: str, x: Tensor, sigma_b: Tensor) -> None:
        """What enters a layer in one call; channels are axis 1 of maps and the last axis of anything else."""

    def see_loss(self, loss: float, sigma: float) -> None:
        """The loss of the sample whose gradients come next, and its noise level."""

    def see_sample(self, name: str, gradient: Tensor) -> None:
        """One parameter's gradient of the last sample's loss."""

    def see_batch(self, name: str, gradient: Tensor, samples: int) -> None:
        """One parameter's gradient of the mean loss of a batch of so many samples."""

    def saliency(self) -> Saliency:
        """The scores, once the pass is over."""
        raise NotImplementedError

    def refit(self, parameter: str, kept: Tensor) -> Refit | None:
        """The parameter with only the `kept` inputs (axis 1), changed to make up for the rest, where the criterion
        knows how; else None."""
        return None


class Waiting:
    """Rows of features that wait, layer by layer, until there are as many as features: adding a few rows at a time to a
    sum takes longer than multiplying them does."""

    def __init__(self, add_up: Callable[[str, Tensor], None]) -> None:
        self._add_up = add_up
        self.patient = True  # False where memory is scarcer than time: nothing waits
        self._rows: dict[str, tuple[list[Tensor], int]] = {}

    def put(self, layer: str, x_nf: Tensor) -> None:
        pieces, count = self._rows.get(layer, ([], 0))
        pieces.append(x_nf)
        self._rows[layer] = (pieces, count + x_nf.shape[0])
        if not self.patient or count + x_nf.shape[0] >= x_nf.shape[1]:
            self.flush(layer)

    def flush(self, layer: str) -> None:
        if layer in self._rows:
            pieces, _ = self._rows.pop(layer)
            self._add_up(layer, torch.cat(pieces))


def readers(unet: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Name -> every layer with weights that multiply channels."""
    return {name: m for name, m in unet.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}


def is_depthwise(module: nn.Module) -> bool:
    """Whether each output channel reads one input channel: then the weight's axis 1 is no input axis."""
    return isinstance(module, nn.Conv2d) and module.groups > 1


def rows(x: Tensor) -> Tensor:
    """(b, c, h, w) maps or (b, .., f) sequences as (b, n, f)."""
    return x.flatten(2).transpose(1, 2) if x.dim() == 4 else x.reshape(len(x), -1, x.shape[-1])
