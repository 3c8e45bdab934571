"""What a reward is: pictures and a request in, one number a picture out.

Shape suffixes: b batch, 3 colour channels, h and w rows and columns of a picture in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from compress.data.scenes.captions import Prompt
from compress.data.scenes.edits import Instruction
from teachers.base import Condition


@dataclass(frozen=True)
class Request:
    """What was asked of each picture, in every form that some reward reads.

    `condition` holds the encoded text. `source_b3hw` is the picture to edit, a row of zeros (or no source at all) where
    nothing is edited. `meanings` is what the texts mean exactly, for a verifier; rewards that learn never see it.
    """

    condition: Condition
    source_b3hw: Tensor | None = None
    meanings: Sequence[Prompt | Instruction] = ()

    @property
    def edits_b(self) -> Tensor:
        """True on the rows that edit, shape (b,)."""
        if self.source_b3hw is None:
            return self.condition.edits_b
        return self.source_b3hw.flatten(1).ne(0).any(dim=1)


class Reward(Protocol):
    """Scores pictures; a `differentiable` one passes gradients to them."""

    differentiable: bool

    def score(self, images_b3hw: Tensor, request: Request) -> Tensor:
        """One number a picture, shape (b,), higher is better; pictures in [-1, 1]."""
        ...
