"""Backward simulation is inference without gradient; recorded paths and their segments against the exact ODE."""

import pytest
import torch

from compress.diffusion import few_step
from compress.diffusion.prediction import x0_of_velocity
from compress.diffusion.sampler import sample, step_to
from compress.diffusion.schedule import sigmas
from teachers.base import Condition
from teachers.gaussian import GaussianTeacher

RUNGS = (1.0, 0.75, 0.5, 0.25)
CONDITION = Condition(torch.zeros(5, 1, 1, dtype=torch.float64))


@pytest.fixture
def teacher():
    means = torch.tensor([-1.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    return GaussianTeacher(means, 0.4)


@pytest.fixture
def noise():
    return torch.randn(5, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("stochastic", [False, True])
def test_the_walk_is_inference_itself(teacher, noise, stochastic):
    walk = few_step.backward_simulation(teacher, noise, CONDITION, RUNGS, stochastic, torch.Generator().manual_seed(1))
    inferred = sample(
        teacher, noise, CONDITION, [*RUNGS, 0.0], stochastic=stochastic, generator=torch.Generator().manual_seed(1)
    )
    torch.testing.assert_close(walk.end_bchw, inferred)
    assert walk.states_kbchw.shape == (4, 5, 1, 1, 1)
    torch.testing.assert_close(walk.states_kbchw[0], noise)
    torch.testing.assert_close(walk.clean_kbchw[-1], inferred)  # the last step of either walk lands on its x0


def test_each_rungs_clean_sample_is_the_x0_of_its_state(teacher, noise):
    walk = few_step.backward_simulation(teacher, noise, CONDITION, RUNGS, True, torch.Generator().manual_seed(1))
    rung_b = torch.tensor([0, 1, 2, 3, 1])
    state, clean = walk.at(rung_b)
    sigma_b = torch.tensor(RUNGS, dtype=torch.float64)[rung_b]
    torch.testing.assert_close(clean, x0_of_velocity(state, teacher.velocity(state, sigma_b), sigma_b))


def test_no_gradient_passes_through_earlier_rungs(teacher, noise):
    gain = torch.ones((), dtype=torch.float64, requires_grad=True)

    class Scaled:
        def velocity(self, x_bchw, sigma_b, condition):
            return gain * teacher.velocity(x_bchw, sigma_b, condition)

    walk = few_step.backward_simulation(Scaled(), noise, CONDITION, RUNGS, False)
    assert not walk.states_kbchw.requires_grad and not walk.clean_kbchw.requires_grad


def test_a_path_stops_at_every_rung_once():
    levels = few_step.path_levels(sigmas(4), (1.0, 0.6, 0.25))
    assert levels == [1.0, 0.75, 0.6, 0.5, 0.25, 0.0]


def test_a_path_starts_at_the_noise_and_follows_the_ode(teacher, noise):
    path = few_step.teacher_path(teacher, noise, CONDITION, sigmas(64), RUNGS, None)
    assert path.shape == (5, 5, 1, 1, 1)
    torch.testing.assert_close(path[0], noise)
    torch.testing.assert_close(path[-1], sample(teacher, noise, CONDITION, sigmas(64)))


def test_segments_chained_by_euler_retrace_the_path(teacher, noise):
    path = few_step.teacher_path(teacher, noise, CONDITION, sigmas(16), RUNGS, None)
    for rung, (sigma, sigma_next) in enumerate(zip(RUNGS, (*RUNGS[1:], 0.0), strict=True)):
        state, velocity = few_step.segment_velocity(path, RUNGS, torch.full((5,), rung), to_end=False)
        torch.testing.assert_close(state, path[rung])
        torch.testing.assert_close(step_to(state, velocity, sigma, sigma_next), path[rung + 1])


def test_segments_to_the_end_predict_the_paths_x0_from_any_rung(teacher, noise):
    path = few_step.teacher_path(teacher, noise, CONDITION, sigmas(16), RUNGS, None)
    rung_b = torch.tensor([3, 2, 1, 0, 2])
    state, velocity = few_step.segment_velocity(path, RUNGS, rung_b, to_end=True)
    sigma_b = torch.tensor(RUNGS, dtype=torch.float64)[rung_b]
    torch.testing.assert_close(x0_of_velocity(state, velocity, sigma_b), path[-1])
