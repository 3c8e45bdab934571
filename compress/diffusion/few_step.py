"""The few-step walk as training sees it: its states, what the student makes of them, and the teacher's path below.

Shape suffixes: k rungs (falling noise levels without the final 0), b batch, c channels, h and w rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.diffusion.guidance import Guidance
from compress.diffusion.prediction import x0_of_velocity
from compress.diffusion.sampler import sample
from teachers.base import Condition, VelocityModel


@dataclass(frozen=True)
class Walk:
    """One backward simulation: the state at each rung, the x0 predicted there, and where the walk ended."""

    states_kbchw: Tensor
    clean_kbchw: Tensor
    end_bchw: Tensor

    def at(self, rung_b: Tensor) -> tuple[Tensor, Tensor]:
        """(state, predicted x0) of each sample at its own rung, (b, c, h, w) each."""
        rows_b = torch.arange(len(rung_b), device=rung_b.device)
        return self.states_kbchw[rung_b, rows_b], self.clean_kbchw[rung_b, rows_b]


@torch.no_grad()
def backward_simulation(
    model: VelocityModel,
    noise_bchw: Tensor,
    condition: Condition,
    rungs: Sequence[float],
    stochastic: bool,
    generator: torch.Generator | None = None,
) -> Walk:
    """Walks a student down its rungs without gradient, exactly as at inference; DMD2 (arXiv 2405.14867) section 4.5.

    Training at these states instead of noised data is what makes train input equal to inference input.
    """
    states: list[Tensor] = []
    clean: list[Tensor] = []

    def record(step: int, sigma: float, x_bchw: Tensor, velocity_bchw: Tensor) -> None:
        states.append(x_bchw)
        clean.append(x0_of_velocity(x_bchw, velocity_bchw, x_bchw.new_full((len(x_bchw),), sigma)))

    end_bchw = sample(
        model, noise_bchw, condition, [*rungs, 0.0], stochastic=stochastic, generator=generator, callback=record
    )
    return Walk(torch.stack(states), torch.stack(clean), end_bchw)


def path_levels(levels: Sequence[float], rungs: Sequence[float]) -> list[float]:
    """A many-step list of levels that also stops at every rung; both fall, `levels` ends in 0."""
    return sorted({*levels, *rungs, 0.0}, reverse=True)


@torch.no_grad()
def teacher_path(
    model: VelocityModel,
    noise_bchw: Tensor,
    condition: Condition,
    levels: Sequence[float],
    rungs: Sequence[float],
    guidance: Guidance | None,
) -> Tensor:
    """The teacher's Euler path at every rung and at 0, (k + 1, b, c, h, w); starts at the first rung's state."""
    stops: dict[float, Tensor] = {}

    def record(step: int, sigma: float, x_bchw: Tensor, velocity_bchw: Tensor) -> None:
        if sigma in rungs:
            stops[sigma] = x_bchw

    end_bchw = sample(model, noise_bchw, condition, path_levels(levels, rungs), guidance, callback=record)
    return torch.stack([*(stops[sigma] for sigma in rungs), end_bchw])


def segment_velocity(path_kbchw: Tensor, rungs: Sequence[float], rung_b: Tensor, to_end: bool) -> tuple[Tensor, Tensor]:
    """(state, velocity) that take each sample along a teacher's path from its rung in one straight step.

    To the next rung, the path's mean velocity in between: progressive distillation (arXiv 2202.00512) of many steps
    at once, for a walk by Euler. `to_end`: straight to x0, for a walk that predicts x0 and noises it afresh.
    """
    rows_b = torch.arange(len(rung_b), device=rung_b.device)
    levels_k = torch.tensor([*rungs, 0.0], dtype=path_kbchw.dtype, device=path_kbchw.device)
    last = len(rungs)
    stop_b = torch.full_like(rung_b, last) if to_end else rung_b + 1
    start_bchw, stop_bchw = path_kbchw[rung_b, rows_b], path_kbchw[stop_b, rows_b]
    fall_b111 = (levels_k[rung_b] - levels_k[stop_b]).reshape(-1, *[1] * (start_bchw.dim() - 1))
    return start_bchw, (start_bchw - stop_bchw) / fall_b111
