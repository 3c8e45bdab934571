"""DMD against exact answers: zero where student and data agree, and the KL's own gradient for a 1-D Gaussian."""

import math

import numpy as np
import pytest
import torch

from compress.diffusion.guidance import TextGuidance, guided_velocity
from compress.diffusion.prediction import add_noise, x0_of_velocity
from compress.objectives import dmd
from teachers.base import Condition
from teachers.gaussian import GaussianTeacher

DATA_MEAN, DATA_STD = 0.5, 0.4


def gaussian(mean: float, std: float) -> GaussianTeacher:
    return GaussianTeacher(torch.full((1, 1, 1, 1), mean, dtype=torch.float64), std)


def quadrature() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Nodes z, eps and weights that integrate polynomials under two independent normals exactly."""
    node, weight = np.polynomial.hermite_e.hermegauss(12)
    z, eps = (torch.from_numpy(grid).reshape(-1, 1, 1, 1) for grid in np.meshgrid(node, node))
    return z, eps, torch.from_numpy(np.outer(weight, weight)).flatten() / (2 * math.pi)


def expected_gradients(mean: float, std: float, sigma: float) -> tuple[float, float]:
    """The unnormalised DMD gradient by the student's mean and std, x = mean + std * z, averaged exactly."""
    z, eps, weight = quadrature()
    sample, sigma_b = mean + std * z, torch.full((len(z),), sigma, dtype=torch.float64)
    state = add_noise(sample, eps, sigma_b)
    real, fake = (
        x0_of_velocity(state, teacher.velocity(state, sigma_b), sigma_b)
        for teacher in (gaussian(DATA_MEAN, DATA_STD), gaussian(mean, std))
    )
    gradient = dmd.dmd_gradient(sample, real, fake, normalise=False).flatten()
    return float((weight * gradient).sum()), float((weight * gradient * z.flatten()).sum())


@pytest.mark.parametrize("sigma", [0.1, 0.5, 0.9])
def test_the_gradient_vanishes_where_student_and_data_have_one_law(sigma):
    assert expected_gradients(DATA_MEAN, DATA_STD, sigma) == pytest.approx((0, 0), abs=1e-12)
    same = torch.randn(3, 1, 2, 2)
    assert torch.equal(dmd.dmd_gradient(torch.randn(3, 1, 2, 2), same, same), torch.zeros(3, 1, 2, 2))


@pytest.mark.parametrize("sigma", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("mean, std", [(0.9, 0.4), (0.5, 0.7), (-0.2, 0.1)])
def test_the_gradient_is_that_of_the_kl_between_noised_laws(mean, std, sigma):
    """KL(N(k a, v_f) || N(k m, v_r)), k = 1 - sigma, has d/da = k^2 (a - m) / v_r and d/db = k^2 b (1/v_r - 1/v_f);
    in x0 space the score difference carries sigma^2 / k, and dx_sigma = k dx."""
    keep = 1 - sigma
    var_real = keep**2 * DATA_STD**2 + sigma**2
    var_fake = keep**2 * std**2 + sigma**2
    to_x0 = sigma**2 / keep**2
    by_mean = to_x0 * keep**2 * (mean - DATA_MEAN) / var_real
    by_std = to_x0 * keep**2 * std * (1 / var_real - 1 / var_fake)
    assert expected_gradients(mean, std, sigma) == pytest.approx((by_mean, by_std), rel=1e-9, abs=1e-12)


def test_score_of_x0_is_the_exact_score():
    teacher, sigma_b = gaussian(DATA_MEAN, DATA_STD), torch.tensor([0.3, 1.0], dtype=torch.float64)
    state = torch.tensor([0.2, -1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    score = dmd.score_of_x0(state, teacher.posterior_mean(state, sigma_b), sigma_b)
    torch.testing.assert_close(score, teacher.score(state, sigma_b))


def test_the_normaliser_is_the_samples_distance_to_the_real_x0():
    sample, real = torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
    fake = torch.tensor([[[[3.0, 1.0]]]])
    assert dmd.dmd_gradient(sample, real, fake).flatten().tolist() == pytest.approx([3 / 1.5, 0])


def test_a_sample_without_distance_gets_no_gradient_rather_than_nan():
    same = torch.zeros(1, 1, 2, 2)
    assert torch.equal(dmd.dmd_gradient(same, same, same), same)
    assert torch.equal(dmd.dmd_gradient(same, same, same + 1), same)


def test_the_loss_hands_its_gradient_to_the_sample_and_nothing_to_the_scores():
    sample = torch.randn(2, 1, 2, 2, requires_grad=True)
    gradient = torch.randn(2, 1, 2, 2, requires_grad=True)
    loss_b = dmd.dmd_loss(sample, gradient)
    assert loss_b.shape == (2,)
    loss_b.sum().backward()
    torch.testing.assert_close(sample.grad, gradient.detach() / 4)
    assert gradient.grad is None


def test_the_fake_scores_loss_is_flow_matching_that_leaves_the_student_alone():
    sample = torch.randn(2, 1, 2, 2, requires_grad=True)
    noise = torch.randn(2, 1, 2, 2)
    velocity = (noise - sample.detach() + 1).requires_grad_()
    loss_b = dmd.fake_score_loss(velocity, sample, noise)
    assert loss_b.tolist() == pytest.approx([1, 1])
    loss_b.sum().backward()
    assert sample.grad is None and velocity.grad is not None


def test_guided_dmd_splits_into_distribution_matching_and_guidance_augmentation():
    """Decoupled DMD (arXiv 2511.22677): guided real - fake = (cond - fake) + (scale - 1)(cond - uncond)."""

    def choose(condition):
        return condition.tokens_btd[:, 0] * 4

    means = torch.tensor([-1.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    teacher = GaussianTeacher(means, 0.3, log_prior=choose)
    text = Condition(torch.tensor([[[1.0, -1.0]], [[-1.0, 1.0]]], dtype=torch.float64))
    null = Condition(torch.zeros(1, 1, 2, dtype=torch.float64))
    state = torch.tensor([0.3, -0.4], dtype=torch.float64).reshape(2, 1, 1, 1)
    sigma_b = torch.tensor([0.5, 0.8], dtype=torch.float64)
    fake = torch.tensor([0.1, 0.2], dtype=torch.float64).reshape(2, 1, 1, 1)
    guided = x0_of_velocity(state, guided_velocity(teacher, state, sigma_b, text, TextGuidance(3.0, null)), sigma_b)
    cond = teacher.posterior_mean(state, sigma_b, text)
    uncond = teacher.posterior_mean(state, sigma_b, null[[0, 0]])
    torch.testing.assert_close(guided - fake, (cond - fake) + (3.0 - 1) * (cond - uncond))


def test_following_the_loss_turns_the_student_into_the_data():
    """x = mean + std * z with an exact fake score, whatever the student currently is: DMD has to end at the data."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.tensor(-0.8, dtype=torch.float64, requires_grad=True)
    std = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([mean, std], lr=0.03)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 200)
        z, eps = (torch.randn(256, 1, 1, 1, generator=generator, dtype=torch.float64) for _ in range(2))
        sigma_b = 0.02 + 0.96 * torch.rand(256, generator=generator, dtype=torch.float64)
        sample = mean + std * z
        state = add_noise(sample.detach(), eps, sigma_b)
        real, fake = (
            teacher.posterior_mean(state, sigma_b)
            for teacher in (gaussian(DATA_MEAN, DATA_STD), gaussian(mean.item(), std.item()))
        )
        # the normaliser weighs samples by their own distance, which biases a mean over samples; off for exactness
        gradient = dmd.dmd_gradient(sample.detach(), real, fake, normalise=False)
        optimizer.zero_grad()
        dmd.dmd_loss(sample, gradient).mean().backward()
        optimizer.step()
    assert mean.item() == pytest.approx(DATA_MEAN, abs=0.02)
    assert std.item() == pytest.approx(DATA_STD, abs=0.02)
