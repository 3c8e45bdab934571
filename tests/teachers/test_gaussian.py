"""The analytic teacher is right: score against finite differences, moments against samples, prompts against Bayes."""

import pytest
import torch

from compress.diffusion.prediction import add_noise
from teachers.base import Condition, VelocityModel
from teachers.gaussian import GaussianTeacher

SIGMA_B = torch.tensor([0.05, 0.4, 0.8, 1.0], dtype=torch.float64)


@pytest.fixture
def teacher():
    means = torch.randn(3, 2, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return GaussianTeacher(
        means, torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64), torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    )


@pytest.fixture
def x():
    return torch.randn(4, 2, 1, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_it_is_a_velocity_model(teacher):
    assert isinstance(teacher, VelocityModel)


def test_the_score_is_the_gradient_of_the_log_density(teacher, x):
    moving = x.clone().requires_grad_()
    gradient = torch.autograd.grad(teacher.log_density(moving, SIGMA_B).sum(), moving)[0]
    torch.testing.assert_close(teacher.score(x, SIGMA_B), gradient, rtol=1e-9, atol=1e-9)


def test_velocity_score_and_posterior_mean_agree(teacher, x):
    # score = -(x + (1 - sigma) v) / sigma
    sigma = SIGMA_B.reshape(-1, 1, 1, 1)
    expected = -(x + (1 - sigma) * teacher.velocity(x, SIGMA_B)) / sigma
    torch.testing.assert_close(teacher.score(x, SIGMA_B), expected)


def test_pure_noise_tells_nothing_and_the_mean_is_the_datas(teacher, x):
    mean = (teacher.weights_k[:, None] * teacher.means_kd).sum(dim=0).reshape(2, 1, 2)
    torch.testing.assert_close(
        teacher.posterior_mean(x, torch.ones(4, dtype=torch.float64)), mean.expand(4, -1, -1, -1)
    )


def test_one_gaussians_posterior_mean_is_the_textbook_one():
    single = GaussianTeacher(torch.full((1, 1, 1, 1), 2.0, dtype=torch.float64), 0.5)
    x = torch.tensor([[[[1.3]]]], dtype=torch.float64)
    variance = 0.6**2 * 0.25 + 0.4**2
    expected = 2.0 + 0.6 * 0.25 / variance * (1.3 - 0.6 * 2.0)
    assert single.posterior_mean(x, torch.tensor([0.4], dtype=torch.float64)).item() == pytest.approx(expected)


def test_the_velocity_minimises_the_flow_matching_loss(teacher):
    # E[(eps - x0) | x] is the least-squares fit: the residual is uncorrelated with any function of x
    generator = torch.Generator().manual_seed(2)
    x0 = teacher.draw(200_000, generator)
    eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    sigma_b = torch.full((len(x0),), 0.5, dtype=torch.float64)
    state = add_noise(x0, eps, sigma_b)
    residual = eps - x0 - teacher.velocity(state, sigma_b)
    for feature in (torch.ones_like(state), state, state.sin()):
        assert (residual * feature).mean(dim=0).abs().max() < 0.01


def test_draws_have_the_mixtures_moments(teacher):
    samples = teacher.draw(200_000, torch.Generator().manual_seed(3)).flatten(1)
    mean = (teacher.weights_k[:, None] * teacher.means_kd).sum(dim=0)
    second = (teacher.weights_k[:, None] * (teacher.means_kd**2 + teacher.std_k[:, None] ** 2)).sum(dim=0)
    torch.testing.assert_close(samples.mean(dim=0), mean, rtol=0, atol=0.01)
    torch.testing.assert_close((samples**2).mean(dim=0), second, rtol=0, atol=0.02)


def test_a_prompt_can_select_components(x):
    def choose(condition):
        return torch.where(condition.tokens_btd[:, 0] > 0, 0.0, -torch.inf)

    means = torch.tensor([-1.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    teacher = GaussianTeacher(means, 0.1, log_prior=choose)
    condition = Condition(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]]], dtype=torch.float64))
    state, sigma_b = torch.zeros(3, 1, 1, 1, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    assert teacher.posterior_mean(state, sigma_b, condition).flatten().tolist() == pytest.approx([-1, 1, 0])
    assert teacher.draw(3, torch.Generator().manual_seed(0), condition)[:2].flatten().sign().tolist() == [-1, 1]
