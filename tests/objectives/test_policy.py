"""Policy objectives: group statistics, a stochastic step that keeps the marginals, ratio one, and NFT's free checks."""

import math

import pytest
import torch

from compress.diffusion.schedule import sigmas
from compress.objectives import policy
from teachers.gaussian import GaussianTeacher


def test_advantages_are_standardised_within_groups_and_never_across():
    advantage = policy.group_advantage(torch.tensor([1.0, 3.0, 100.0, 100.0]), 2)
    assert advantage.tolist() == [-1, 1, 0, 0]  # the second group has no spread, so it teaches nothing


def test_advantages_are_clipped():
    reward = torch.zeros(100)
    reward[0] = 1
    assert policy.group_advantage(reward, 100, clip=5).max() == 5


def test_rewards_that_do_not_fill_groups_are_refused():
    with pytest.raises(ValueError, match="groups of 2"):
        policy.group_advantage(torch.zeros(3), 2)


@pytest.mark.slow
def test_the_stochastic_step_keeps_the_marginals():
    std, count = 0.5, 100_000
    teacher = GaussianTeacher(torch.zeros(1, 1, 1, 1, dtype=torch.float64), std)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 1, 1, 1, generator=generator, dtype=torch.float64)
    levels = sigmas(100)
    for sigma, sigma_next in zip(levels[:-1], levels[1:], strict=True):
        velocity = teacher.velocity(x, torch.full((count,), sigma, dtype=torch.float64))
        mean, step_std = policy.sde_step(x, velocity, sigma, sigma_next)
        x = mean + step_std * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    assert x.std().item() == pytest.approx(std, abs=0.01)
    assert x.mean().item() == pytest.approx(0, abs=0.01)


def test_without_noise_the_step_is_euler():
    x, velocity = torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2)
    mean, std = policy.sde_step(x, velocity, 0.6, 0.4, noise_scale=0)
    torch.testing.assert_close(mean, x - 0.2 * velocity)
    assert std == 0


def test_log_prob_is_the_normals():
    x_next, mean = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    expected = torch.distributions.Normal(mean, 0.3).log_prob(x_next).flatten(1).mean(dim=1)
    torch.testing.assert_close(policy.log_prob(x_next, mean, 0.3), expected)


def test_before_the_first_update_the_ratio_is_one_and_the_gradient_is_the_advantages():
    log_prob = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss = policy.clipped_loss(log_prob, log_prob, torch.tensor([1.5, -0.5]), clip=1e-4)
    assert loss.tolist() == pytest.approx([-1.5, 0.5])
    loss.sum().backward()
    assert log_prob.grad.tolist() == pytest.approx([-1.5, 0.5])


def test_a_ratio_beyond_the_clip_stops_learning_only_in_the_direction_of_its_advantage():
    log_prob = torch.tensor([0.1, 0.1], requires_grad=True)
    policy.clipped_loss(log_prob, torch.zeros(2), torch.tensor([1.0, -1.0]), clip=0.05).sum().backward()
    assert log_prob.grad[0] == 0
    assert log_prob.grad[1].item() == pytest.approx(math.exp(0.1))


def test_kl_of_equal_stds():
    first, second = (torch.distributions.Normal(torch.full((1, 1, 2, 2), m), 0.3) for m in (0.1, 0.5))
    expected = torch.distributions.kl_divergence(first, second).flatten(1).mean(dim=1)
    torch.testing.assert_close(policy.gaussian_kl(first.mean, second.mean, 0.3), expected)


@pytest.mark.parametrize("preference", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_nfts_first_gradient_is_the_closed_form(preference, beta):
    generator = torch.Generator().manual_seed(0)
    old, target = (torch.randn(1, 1, 2, 2, generator=generator) for _ in range(2))
    velocity = old.clone().requires_grad_()
    policy.nft_loss(velocity, old, target, torch.tensor([preference]), beta).sum().backward()
    torch.testing.assert_close(velocity.grad, 2 * beta * (2 * preference - 1) * (old - target) / 4)
