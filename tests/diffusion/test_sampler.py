"""Samplers against exact Gaussian answers: where the ODE ends, the few-step walk's moments, resumable noise."""

import math

import pytest
import torch

from compress.diffusion import sampler
from compress.diffusion.schedule import sigmas
from teachers.base import Condition
from teachers.gaussian import GaussianTeacher

DOUBLE = torch.float64


def one_gaussian(mean: float, std: float) -> GaussianTeacher:
    return GaussianTeacher(torch.full((1, 1, 1, 1), mean, dtype=DOUBLE), std)


def noise(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def condition(count: int) -> Condition:
    return Condition(torch.zeros(count, 1, 1, dtype=DOUBLE))


def test_the_ode_maps_noise_to_data_quantile_by_quantile():
    # the flow of one Gaussian keeps quantiles: x0 = mean + std * eps
    eps = torch.linspace(-2, 2, 5, dtype=DOUBLE).reshape(5, 1, 1, 1)
    x0 = sampler.sample(one_gaussian(0.7, 0.5), eps, condition(5), sigmas(200))
    torch.testing.assert_close(x0, 0.7 + 0.5 * eps, rtol=0, atol=1e-2)


def test_one_step_is_the_posterior_mean():
    teacher = one_gaussian(0.7, 0.5)
    eps = noise(6)
    x0 = sampler.sample(teacher, eps, condition(6), [1.0, 0.0])
    torch.testing.assert_close(x0, teacher.posterior_mean(eps, torch.ones(6, dtype=DOUBLE)))


@pytest.mark.parametrize("steps", [2, 4])
def test_stochastic_moments_match_their_recursion(steps):
    """With x0_hat = m + k (x - (1 - s) m) each rung's variance is (1 - s')^2 k^2 var + s'^2; the mean stays exact."""
    mean, std, count = 0.7, 0.5, 400_000
    levels = sigmas(steps, 2.0)
    samples = sampler.sample(
        one_gaussian(mean, std),
        noise(count),
        condition(count),
        levels,
        stochastic=True,
        generator=torch.Generator().manual_seed(1),
    )
    variance = 1.0
    for sigma, sigma_next in zip(levels, levels[1:], strict=False):
        gain = (1 - sigma) * std**2 / ((1 - sigma) ** 2 * std**2 + sigma**2)
        variance = (1 - sigma_next) ** 2 * gain**2 * variance + sigma_next**2
    assert samples.mean() == pytest.approx(mean, abs=0.005)
    assert samples.std() == pytest.approx(math.sqrt(variance), abs=0.005)


def test_a_perfect_few_step_student_keeps_the_data_law():
    """A student that maps any state to a true sample of the data: every rung's state then has the exact marginal."""
    states = []

    class Perfect:
        def velocity(self, x_bchw, sigma_b, _):
            sigma = sigma_b.reshape(-1, 1, 1, 1)
            x0 = 0.7 + 0.5 * (x_bchw - (1 - sigma) * 0.7) / torch.sqrt((1 - sigma) ** 2 * 0.25 + sigma**2)
            return (x_bchw - x0) / sigma

    def watch(step, sigma, x_bchw, velocity_bchw):
        states.append((sigma, x_bchw))

    count = 200_000
    x0 = sampler.sample(
        Perfect(),
        noise(count),
        condition(count),
        sigmas(4),
        stochastic=True,
        generator=torch.Generator().manual_seed(1),
        callback=watch,
    )
    for sigma, x in [*states, (0.0, x0)]:
        assert x.mean() == pytest.approx((1 - sigma) * 0.7, abs=0.01)
        assert x.std() == pytest.approx(math.sqrt((1 - sigma) ** 2 * 0.25 + sigma**2), abs=0.01)


def test_the_callback_sees_every_network_call_in_order():
    seen = []
    sampler.sample(
        one_gaussian(0, 1),
        noise(3),
        condition(3),
        sigmas(4),
        callback=lambda step, sigma, x_bchw, velocity_bchw: seen.append(
            (step, sigma, x_bchw.shape == velocity_bchw.shape)
        ),
    )
    assert seen == [(0, 1.0, True), (1, 0.75, True), (2, 0.5, True), (3, 0.25, True)]


def test_the_same_generator_gives_the_same_walk_and_another_does_not():
    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        return sampler.sample(
            one_gaussian(0, 1), noise(3), condition(3), sigmas(4), stochastic=True, generator=generator
        )

    assert torch.equal(run(5), run(5))
    assert not torch.equal(run(5), run(6))


def test_gradients_flow_through_the_whole_walk():
    eps = noise(2).requires_grad_()
    sampler.sample(one_gaussian(0.7, 0.5), eps, condition(2), sigmas(3)).sum().backward()
    assert bool((eps.grad > 0).all())


@pytest.mark.parametrize("levels", [[1.0], [1.0, 0.5], [1.0, 0.5, 0.5, 0.0], [1.2, 0.0], [0.2, 0.4, 0.0]])
def test_levels_that_do_not_fall_to_zero_are_refused(levels):
    with pytest.raises(ValueError, match="fall"):
        sampler.sample(one_gaussian(0, 1), noise(1), condition(1), levels)
