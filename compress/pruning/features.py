"""What the teacher computes inside, on all fitting samples: the targets of least squares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.pruning.calibration import Noised, predict, rows_of
from teachers.base import Condition

CHUNK = 64  # samples a forward of the teacher

Place = tuple[str, str]  # (module of the teacher, "in" or "out")


class TeacherFeatures:
    """Feature maps of a teacher on all fitting samples, recorded when first asked for and kept for the next student."""

    def __init__(self, teacher: nn.Module, batches: Sequence[Noised]) -> None:
        self.teacher, self.samples = teacher, join(batches)
        self.modules = dict(teacher.named_modules())
        self._maps: dict[Place, Tensor] = {}

    @torch.no_grad()
    def record(self, places: Iterable[Place]) -> None:
        """Runs the teacher once if one of the places (module, "in" or "out") has not been recorded yet."""
        missing = [place for place in dict.fromkeys(places) if place not in self._maps and place[0] in self.modules]
        seen: dict[Place, list[Tensor]] = {place: [] for place in missing}
        handles = [self.modules[place[0]].register_forward_hook(_recorder(seen[place], place[1])) for place in missing]
        try:
            for start in range(0, len(self.samples.sigma_b) if missing else 0, CHUNK):
                predict(self.teacher, rows_of(self.samples, slice(start, start + CHUNK)))
        finally:
            for handle in handles:
                handle.remove()
        self._maps |= {place: torch.cat(maps) for place, maps in seen.items()}

    def __contains__(self, place: Place) -> bool:
        return place in self._maps

    def __getitem__(self, place: Place) -> Tensor:
        return self._maps[place]


def join(batches: Sequence[Noised]) -> Noised:
    """All samples as one batch."""
    return Noised(
        torch.cat([b.x_bchw for b in batches]),
        torch.cat([b.sigma_b for b in batches]),
        torch.cat([b.velocity_bchw for b in batches]),
        Condition.cat([b.condition for b in batches]),
        batches[0].paired,
    )


def _recorder(into: list[Tensor], where: str) -> Callable[..., None]:
    def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        value = args[0] if where == "in" else output
        into.append(value[0] if isinstance(value, tuple) else value)

    return hook
