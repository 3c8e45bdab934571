"""The adversarial losses at an ignorant critic, their signs, and the derivative-free R1 against the true one."""

import math

import pytest
import torch

from compress.objectives import adversarial


def test_an_ignorant_critic_costs_log_two_each():
    zero = torch.zeros(2)
    assert adversarial.generator_loss(zero).tolist() == pytest.approx([math.log(2)] * 2)
    assert adversarial.critic_loss(zero, zero).tolist() == pytest.approx([2 * math.log(2)] * 2)


def test_generator_and_critic_pull_the_fake_logit_apart():
    for loss, sign in (
        (adversarial.generator_loss, -1),
        (lambda fake: adversarial.critic_loss(torch.zeros(1), fake), 1),
    ):
        logit = torch.zeros(1, requires_grad=True)
        loss(logit).sum().backward()
        assert logit.grad.item() == pytest.approx(sign * 0.5)


def test_a_certain_critic_saturates_without_overflow():
    far = torch.tensor([1000.0])
    assert adversarial.critic_loss(far, -far).item() == 0
    assert adversarial.critic_loss(-far, far).item() == 2000


def test_approximate_r1_averages_to_the_squared_gradient():
    x, slope = torch.zeros(100_000, 3), torch.tensor([1.0, -2.0, 0.5])
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) * 0.01
    penalty = adversarial.approximate_r1(x @ slope, (x + noise) @ slope, 0.01)
    assert penalty.mean().item() == pytest.approx(float(slope @ slope), rel=0.02)
