"""The schedule's identities: end points, inverses, published values, and the law of the training draws."""

import math

import pytest
import torch

from compress.diffusion import schedule


def test_sigmas_fall_from_one_to_zero_with_a_step_each():
    levels = schedule.sigmas(4)
    assert levels == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_sigmas_match_dreamlite_at_1024_and_512_pixels():
    at_1024 = schedule.sigmas(4, schedule.resolution_shift(4096))
    at_512 = schedule.sigmas(4, schedule.resolution_shift(1024))
    assert at_1024 == pytest.approx([1.0, 0.9045, 0.7595, 0.5128, 0.0], abs=1e-4)
    assert at_512 == pytest.approx([1.0, 0.8492, 0.6525, 0.3849, 0.0], abs=1e-4)


def test_zero_steps_are_refused():
    with pytest.raises(ValueError, match="at least 1 step"):
        schedule.sigmas(0)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.158])
def test_shift_is_inverted_and_keeps_the_ends(shift):
    sigma_b = torch.linspace(0, 1, 11, dtype=torch.float64)
    shifted_b = schedule.shift_sigma(sigma_b, shift)
    torch.testing.assert_close(schedule.unshift_sigma(shifted_b, shift), sigma_b)
    assert shifted_b[0] == 0 and shifted_b[-1] == 1


def test_shift_divides_the_square_root_of_the_snr():
    # shifting by k multiplies sigma / (1 - sigma) by k, hence divides SNR by k squared
    assert schedule.snr(schedule.shift_sigma(0.4, 3.0)) == pytest.approx(schedule.snr(0.4) / 9)


def test_snr_is_inverted_and_one_in_the_middle():
    sigma_b = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    torch.testing.assert_close(schedule.sigma_of_snr(schedule.snr(sigma_b)), sigma_b)
    assert schedule.snr(0.5) == 1


def test_uniform_draws_stay_in_the_half_open_interval():
    sigma_b = schedule.draw_uniform(50_000, torch.Generator().manual_seed(0), 0.25, 0.75)
    assert 0.25 < sigma_b.min() and sigma_b.max() <= 0.75
    assert sigma_b.mean() == pytest.approx(0.5, abs=0.005)


def test_logit_normal_draws_have_the_density_they_claim():
    sigma_b = schedule.draw_logit_normal(200_000, torch.Generator().manual_seed(0), mean=0.5, std=0.8)
    share = ((sigma_b > 0.4) & (sigma_b < 0.6)).double().mean()
    grid = torch.linspace(0.4, 0.6, 2001, dtype=torch.float64)
    expected = torch.trapezoid(schedule.logit_normal_density(grid, 0.5, 0.8), grid)
    assert share == pytest.approx(float(expected), abs=0.005)


def test_logit_normal_density_integrates_to_one_and_vanishes_at_the_ends():
    grid = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    density = schedule.logit_normal_density(grid)
    assert torch.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-6)
    assert density[0] == 0 and density[-1] == 0
    assert density.max() == pytest.approx(4 / math.sqrt(2 * math.pi))


def test_the_same_seed_draws_the_same_levels():
    first, second = (schedule.draw_logit_normal(8, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
