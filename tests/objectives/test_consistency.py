"""Continuous-time consistency against the one case whose consistency function is known: Gaussian data."""

import pytest
import torch

from compress.objectives import consistency

STD = 0.5
SIGMA_B = torch.tensor([0.2, 0.6, 0.9], dtype=torch.float64)


def scale(sigma_b):
    return torch.sqrt((1 - sigma_b) ** 2 * STD**2 + sigma_b**2).reshape(-1, 1, 1, 1)


def exact_student(x, sigma_b):
    """The velocity whose jump x - sigma v is the ODE's end x * STD / scale(sigma) for data N(0, STD^2)."""
    return (x - x * STD / scale(sigma_b)) / sigma_b.reshape(-1, 1, 1, 1)


def ode(x, sigma_b):
    """The exact velocity of the flow: x * d log scale / d sigma."""
    sigma = sigma_b.reshape(-1, 1, 1, 1)
    return x * (sigma - (1 - sigma) * STD**2) / scale(sigma_b) ** 2


@pytest.fixture
def x():
    return torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_exact_consistency_function_is_its_own_target(x):
    direction = ode(x, SIGMA_B)
    velocity, derivative = consistency.total_derivative(exact_student, x, SIGMA_B, direction)
    torch.testing.assert_close(consistency.consistency_target(velocity, derivative, direction, SIGMA_B), velocity)


def test_the_total_derivative_is_the_change_along_the_ode(x):
    direction, step = ode(x, SIGMA_B), 1e-5
    _, derivative = consistency.total_derivative(exact_student, x, SIGMA_B, direction)
    ahead = exact_student(x + step * direction, SIGMA_B + step)
    behind = exact_student(x - step * direction, SIGMA_B - step)
    torch.testing.assert_close(derivative, (ahead - behind) / (2 * step), rtol=1e-7, atol=1e-8)


def test_without_warmup_the_target_is_a_normalised_step_to_the_teacher(x):
    student, teacher = torch.zeros_like(x), torch.full_like(x, 3.0)
    target = consistency.consistency_target(student, torch.full_like(x, 99.0), teacher, SIGMA_B, warmup=0)
    torch.testing.assert_close(target, torch.full_like(x, 3 / 3.1))
    assert not consistency.consistency_target(student.requires_grad_(), x, teacher, SIGMA_B).requires_grad


@pytest.mark.slow
def test_a_student_trained_to_the_target_learns_to_jump():
    """Fit v(x, sigma) = k(sigma) x on a grid of levels by following the target; k has to become the exact one."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)).double()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)

    def student(x, sigma_b):
        return net(sigma_b[:, None]).reshape(-1, 1, 1, 1) * x

    generator = torch.Generator().manual_seed(1)
    for step in range(500):
        sigma_b = torch.rand(64, generator=generator, dtype=torch.float64).clamp(min=1e-3)
        x = torch.randn(64, 1, 1, 1, generator=generator, dtype=torch.float64) * scale(sigma_b)
        direction = ode(x, sigma_b)
        with torch.no_grad():
            velocity, derivative = consistency.total_derivative(student, x, sigma_b, direction)
        warmup = min(1.0, step / 150)
        target = consistency.consistency_target(velocity, derivative, direction, sigma_b, warmup)
        loss = ((student(x, sigma_b) - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ones = torch.ones(1, dtype=torch.float64)
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    jump = (x - student(x, ones)).item()
    assert jump == pytest.approx(STD, abs=0.05)  # one step from pure noise lands on the quantile; Euler lands on 0
