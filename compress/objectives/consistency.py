"""Continuous-time consistency in the flow convention: jump to x0 in one step, from anywhere on the ODE's path.

With f(x, sigma) = x - sigma * v(x, sigma), consistency says that f is constant along the teacher's ODE dx = u dsigma:
    df/dsigma = u - v - sigma * dv/dsigma = 0   hence   v = u - sigma * dv/dsigma,
the target below: sCM (arXiv 2410.11081) in flow coordinates, and MeanFlow (arXiv 2505.13447) eq. 6 with r = 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from compress.objectives.error import mean_square


def total_derivative(
    velocity: Callable[[Tensor, Tensor], Tensor], x_bchw: Tensor, sigma_b: Tensor, ode_bchw: Tensor
) -> tuple[Tensor, Tensor]:
    """(v, dv/dsigma) along the direction (dx, dsigma) = (u, 1), by forward-mode differentiation; x's shape each."""
    value_bchw, derivative_bchw = torch.func.jvp(velocity, (x_bchw, sigma_b), (ode_bchw, torch.ones_like(sigma_b)))[:2]
    return value_bchw, derivative_bchw


def consistency_target(
    student_bchw: Tensor, derivative_bchw: Tensor, ode_bchw: Tensor, sigma_b: Tensor, warmup: float = 1.0
) -> Tensor:
    """The velocity that the student should predict, x's shape, without gradient.

    `student` and `derivative` are v and dv/dsigma of `total_derivative`, `ode` the teacher's u. `warmup` in [0, 1]
    scales the unstable tangent (sCM's warm-up); at 0 the target is the teacher's velocity. The step from the
    student's own v is divided by (its root mean square + 0.1), sCM's tangent normalisation.
    """
    sigma_b111 = sigma_b.reshape(-1, *[1] * (student_bchw.dim() - 1))
    step_bchw = ode_bchw - student_bchw - warmup * sigma_b111 * derivative_bchw
    size_b = mean_square(step_bchw, torch.zeros_like(step_bchw)).sqrt()
    return (student_bchw + step_bchw / (size_b.reshape(sigma_b111.shape) + 0.1)).detach()
