"""One pass over the calibration samples that feeds every criterion, however many are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compress.pruning.calibration import Noised, Watch, predict, rows_of, unwatched
from compress.pruning.criteria.base import Criterion, readers


def gather(unet: nn.Module, batches: Sequence[Noised], criteria: Sequence[Criterion], watch: Watch = unwatched) -> None:
    """Shows the samples to the criteria: one forward each, and one backward where any of them wants gradients.

    Gradients of single samples cost a pass for each, so samples are seen one by one only if a criterion asks for that;
    batch gradients are then their mean. Within a batch samples come in order of their noise, the cleanest first.
    Gradients are handed on parameter by parameter and freed at once.
    """
    for criterion in criteria:
        criterion.prepare(batches)
    wanted = _Pass(criteria)
    if not (wanted.inputs or wanted.samples or wanted.batches):
        return
    rounds = max(criterion.rounds for criterion in criteria)
    done = watch("scoring", rounds * len(batches))
    with wanted.listening(unet):
        for _ in range(rounds):
            for batch in batches:
                wanted.walk(unet, batch)
                done()
            for criterion in criteria:
                criterion.end_round()


class _Pass:
    def __init__(self, criteria: Sequence[Criterion]) -> None:
        self.inputs = [c for c in criteria if c.sees_inputs]
        self.samples = [c for c in criteria if c.sees_samples]
        self.batches = [c for c in criteria if c.sees_batches]
        self.sigma_b = torch.zeros(0)
        self.pieces = self.count = 1  # of the present batch: how it is seen, and its samples
        self.means: dict[str, Tensor] = {}

    @property
    def gradients(self) -> bool:
        return bool(self.samples or self.batches)

    def walk(self, unet: nn.Module, batch: Noised) -> None:
        """One batch, whole or sample by sample."""
        pieces = [batch]
        if self.samples:
            cleanest_first = batch.sigma_b.argsort().tolist()
            pieces = [rows_of(batch, slice(row, row + 1)) for row in cleanest_first]
        self.pieces, self.count = len(pieces), len(batch.sigma_b)
        for piece in pieces:
            self.sigma_b = piece.sigma_b
            with torch.set_grad_enabled(self.gradients):
                loss = (predict(unet, piece) - piece.velocity_bchw).square().mean()
            if self.gradients:
                for criterion in self.samples:
                    criterion.see_loss(float(loss.detach()), float(piece.sigma_b[0]))
                loss.backward()
        for name, gradient in self.means.items():
            for criterion in self.batches:
                criterion.see_batch(name, gradient, self.count)
        self.means.clear()

    @contextmanager
    def listening(self, unet: nn.Module) -> Iterator[None]:
        """While open, layers and parameters tell the criteria what they see."""
        handles: list[Any] = []
        if self.inputs:
            handles += [m.register_forward_pre_hook(self._input(name)) for name, m in readers(unet).items()]
        if self.gradients:
            unet.requires_grad_(True)
            for name, p in unet.named_parameters():
                handles.append(p.register_post_accumulate_grad_hook(self._gradient(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            unet.requires_grad_(False)

    def _input(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            with torch.no_grad():
                for criterion in self.inputs:
                    criterion.see_input(name, args[0], self.sigma_b)

        return hook

    def _gradient(self, name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            gradient, parameter.grad = parameter.grad, None
            assert gradient is not None
            for criterion in self.samples:
                criterion.see_sample(name, gradient)
            if self.pieces == 1:
                for criterion in self.batches:
                    criterion.see_batch(name, gradient, self.count)
            elif name in self.means:
                self.means[name].add_(gradient, alpha=1 / self.pieces)
            elif self.batches:
                self.means[name] = gradient / self.pieces

        return hook
