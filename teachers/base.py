"""The one protocol of every denoiser, teacher or student: `velocity(x, sigma, condition)`.

Shape suffixes: b batch, t text tokens, d text width, c latent channels, h and w latent rows and columns.
Flow convention: x_sigma = (1 - sigma) * x0 + sigma * eps, velocity = eps - x0, sigma in (0, 1], 1 is pure noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """Everything a denoiser is told about its samples; every field is batch-first or absent.

    `size_b2` is (width, height) of the target in pixels, as floats. `source_bchw` is the latent of the picture to
    edit; a row of zeros, or no source at all, means generation (DreamLite's code leaves the condition panel at literal
    zeros). `mask_bt` is 1 on real text tokens and 0 on padding; absent means that every token is attended to.
    """

    tokens_btd: Tensor
    pooled_bd: Tensor | None = None
    size_b2: Tensor | None = None
    source_bchw: Tensor | None = None
    mask_bt: Tensor | None = None

    def __len__(self) -> int:
        return self.tokens_btd.shape[0]

    @property
    def edits_b(self) -> Tensor:
        """True on the rows that edit a source, False on those that generate; shape (b,)."""
        if self.source_bchw is None:
            return torch.zeros(len(self), dtype=torch.bool, device=self.tokens_btd.device)
        return self.source_bchw.flatten(1).ne(0).any(dim=1)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Condition:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {name: None if value is None else change(value) for name, value in values.items()}
        return Condition(**changed)  # type: ignore[arg-type]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Condition:
        """Moves every field to `device`; casts all but the size, whose pixels exceed bf16's exact integers."""
        moved = self._map(lambda value: value.to(device=device, dtype=dtype))
        return moved if self.size_b2 is None else replace(moved, size_b2=self.size_b2.to(device=device))

    def detach(self) -> Condition:
        return self._map(Tensor.detach)

    def repeat(self, count: int) -> Condition:
        """The whole batch `count` times over: rows 0, 1, .., b-1, 0, 1, ..."""
        return self._map(lambda value: value.repeat(count, *[1] * (value.dim() - 1)))

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> Condition:
        """The rows of `index`; an integer keeps the batch axis, so the result is always a batch."""
        if isinstance(index, int):
            rows: slice | Tensor | Sequence[int] = [index]
        else:
            rows = index
        return self._map(lambda value: value[rows])

    def with_text(self, text: Condition) -> Condition:
        """The same sizes and sources with the text of `text`, whose batch is 1 or that of this condition."""

        def spread(value: Tensor) -> Tensor:
            return value.expand(len(self), *value.shape[1:])

        return replace(
            self,
            tokens_btd=spread(text.tokens_btd),
            pooled_bd=None if text.pooled_bd is None else spread(text.pooled_bd),
            mask_bt=None if text.mask_bt is None else spread(text.mask_bt),
        )

    def without_source(self) -> Condition:
        """The same texts with the condition panel at zero, as in generation."""
        source = self.source_bchw
        return self if source is None else replace(self, source_bchw=torch.zeros_like(source))

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        """Joins along the batch. Where only some parts have a source or a mask, the others get zeros or ones.

        Raises ValueError where only some parts have pooled text or a size: nothing neutral stands for those.
        """
        if not parts:
            raise ValueError("nothing to join")
        joined: dict[str, Tensor | None] = {}
        neutral = {"source_bchw": 0.0, "mask_bt": 1.0}
        for field in fields(Condition):
            values = [getattr(part, field.name) for part in parts]
            present = [value for value in values if value is not None]
            if present and len(present) < len(values):
                if field.name not in neutral:
                    raise ValueError(f"{field.name} is given in {len(present)} of {len(values)} parts to be joined")
                like = present[0]
                values = [
                    like.new_full((len(part), *like.shape[1:]), neutral[field.name]) if value is None else value
                    for part, value in zip(parts, values, strict=True)
                ]
            joined[field.name] = torch.cat(values) if present else None
        return Condition(**joined)  # type: ignore[arg-type]


@runtime_checkable
class VelocityModel(Protocol):
    """A denoiser in the flow convention."""

    def velocity(self, x_bchw: Tensor, sigma_b: Tensor, condition: Condition) -> Tensor:
        """The predicted eps - x0, of x's shape; sigma_b in (0, 1]."""
        ...
