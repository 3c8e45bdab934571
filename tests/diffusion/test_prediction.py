"""Conversions between predictions: every pair, both ways, against the definition; and SDXL's net as a velocity."""

import itertools

import pytest
import torch

from compress.diffusion import prediction
from teachers.base import Condition
from teachers.gaussian import GaussianTeacher

SIGMA_B = torch.tensor([0.02, 0.3, 0.5, 0.98], dtype=torch.float64)
CONDITION = Condition(torch.zeros(4, 1, 1, dtype=torch.float64))


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64) for _ in range(2))


def definition(kind, x0, eps, a, s):
    return {"eps": eps, "x0": x0, "v": a * eps - s * x0, "flow": eps - x0}[kind]


@pytest.mark.parametrize("path", ["flow", "vp"])
@pytest.mark.parametrize("source, target", itertools.product(prediction.TABLE, repeat=2))
def test_every_conversion_gives_the_definition_of_its_target(pair, path, source, target):
    x0, eps = pair
    a_b, s_b = (1 - SIGMA_B, SIGMA_B) if path == "flow" else prediction.vp_of_sigma(SIGMA_B)
    a, s = prediction.like(a_b, x0), prediction.like(s_b, x0)
    x = a * x0 + s * eps
    converted = prediction.convert(definition(source, x0, eps, a, s), x, a_b, s_b, source, target)
    torch.testing.assert_close(converted, definition(target, x0, eps, a, s), rtol=1e-9, atol=1e-9)


def test_conversion_in_single_precision_is_exact_near_the_ends():
    generator = torch.Generator().manual_seed(1)
    x0, eps = (torch.randn(2, 1, 4, 4, generator=generator) for _ in range(2))
    sigma_b = torch.tensor([1e-3, 0.999])
    x = prediction.add_noise(x0, eps, sigma_b)
    converted = prediction.convert(eps - x0, x, 1 - sigma_b, sigma_b, "flow", "v")
    a_b, s_b = 1 - sigma_b, sigma_b
    torch.testing.assert_close(
        converted, prediction.like(a_b, x) * eps - prediction.like(s_b, x) * x0, rtol=0, atol=2e-6
    )
    assert converted.dtype == torch.float32


def test_velocity_leads_to_x0_and_eps(pair):
    x0, eps = pair
    x = prediction.add_noise(x0, eps, SIGMA_B)
    torch.testing.assert_close(prediction.x0_of_velocity(x, eps - x0, SIGMA_B), x0)
    torch.testing.assert_close(prediction.eps_of_velocity(x, eps - x0, SIGMA_B), eps)
    torch.testing.assert_close(prediction.velocity_of_x0(x, x0, SIGMA_B), eps - x0)


@pytest.mark.parametrize("data_std", [1.0, 0.5])
def test_trigflow_is_the_same_path_in_other_coordinates(pair, data_std):
    x0, eps = pair
    x, velocity = prediction.add_noise(x0, eps, SIGMA_B), eps - x0
    x_trig, output, tau_b = prediction.trig_of_flow(x, velocity, SIGMA_B, data_std)
    tau = prediction.like(tau_b, x)
    # sCM: x_trig = cos(tau) * data_std * x0 + sin(tau) * data_std * eps, output = cos(tau) * eps - sin(tau) * x0
    torch.testing.assert_close(x_trig, data_std * (torch.cos(tau) * x0 + torch.sin(tau) * eps))
    torch.testing.assert_close(output, torch.cos(tau) * eps - torch.sin(tau) * x0)
    back = prediction.flow_of_trig(x_trig, output, tau_b, data_std)
    for ours, expected in zip(back, (x, velocity, SIGMA_B), strict=True):
        torch.testing.assert_close(ours, expected)


def test_trigflow_matches_sana_sprints_closed_form(pair):
    x0, eps = pair
    x, velocity = prediction.add_noise(x0, eps, SIGMA_B), eps - x0
    t = prediction.like(SIGMA_B, x)
    expected = ((1 - 2 * t) * x + (1 - 2 * t + 2 * t**2) * velocity) / torch.sqrt(t**2 + (1 - t) ** 2)
    torch.testing.assert_close(prediction.trig_of_flow(x, velocity, SIGMA_B)[1], expected)


def sdxl_alphas() -> torch.Tensor:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


def exact_epsilon_network(teacher: GaussianTeacher, alphas: torch.Tensor):
    """The eps that a perfectly trained SDXL-like net predicts at (x_vp, timestep) on the mixture's data."""

    def network(x_vp, timestep_b, condition):
        alpha_b = alphas[timestep_b.round().long()]
        a_b, s_b = alpha_b.sqrt(), (1 - alpha_b).sqrt()
        x = x_vp / prediction.like(a_b + s_b, x_vp)
        sigma_b = prediction.sigma_of_vp(a_b, s_b)
        return prediction.eps_of_velocity(x, teacher.velocity(x, sigma_b), sigma_b)

    return network


@pytest.fixture
def mixture():
    return GaussianTeacher(torch.tensor([-1.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1), 0.3)


def test_an_epsilon_network_presents_the_velocity_of_its_own_timesteps(mixture):
    alphas = sdxl_alphas()
    adapter = prediction.EpsilonVelocity(exact_epsilon_network(mixture, alphas), alphas)
    sigma_b = adapter.levels[[10, 200, 700, 999]]
    torch.testing.assert_close(
        adapter.timestep(sigma_b), torch.tensor([10.0, 200.0, 700.0, 999.0], dtype=torch.float64)
    )
    x = torch.tensor([0.9, -0.3, 0.4, 1.2], dtype=torch.float64).reshape(4, 1, 1, 1)
    torch.testing.assert_close(adapter.velocity(x, sigma_b, CONDITION), mixture.velocity(x, sigma_b))


def test_an_epsilon_network_is_finite_at_pure_noise_which_its_schedule_never_saw(mixture):
    alphas = sdxl_alphas()
    adapter = prediction.EpsilonVelocity(exact_epsilon_network(mixture, alphas), alphas)
    assert adapter.levels[-1] < 0.95
    x = torch.tensor([0.9, -0.3, 0.4, 1.2], dtype=torch.float64).reshape(4, 1, 1, 1)
    velocity = adapter.velocity(x, torch.ones(4, dtype=torch.float64), CONDITION)
    x0 = prediction.x0_of_velocity(x, velocity, torch.ones(4, dtype=torch.float64))
    assert bool((x0.abs() < 3).all())


def test_an_epsilon_schedule_in_the_wrong_order_is_refused():
    with pytest.raises(ValueError, match="decrease"):
        prediction.EpsilonVelocity(lambda x, t, c: x, sdxl_alphas().flip(0))
