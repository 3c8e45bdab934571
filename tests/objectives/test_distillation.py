"""Output and feature distillation, and the timestep-aware scaling at its ends and middle."""

import pytest
import torch

from compress.diffusion.schedule import logit_normal_density
from compress.objectives import distillation


def test_output_loss_is_per_sample():
    student, teacher = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    teacher[1] = 3
    assert distillation.output_loss(student, teacher).tolist() == [0, 9]


def test_relative_feature_loss_ignores_the_scale_of_a_layer():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(2))
    plain = distillation.feature_loss([student], [teacher])
    torch.testing.assert_close(distillation.feature_loss([student * 100], [teacher * 100]), plain)
    half_blind = distillation.feature_loss([teacher, torch.zeros_like(teacher)], [teacher, teacher])
    torch.testing.assert_close(half_blind, torch.full((2,), 0.5))


def test_plain_feature_loss_is_the_mean_error_of_layers_of_any_shape():
    student = [torch.zeros(1, 2, 2, 2), torch.zeros(1, 5)]
    teacher = [torch.full((1, 2, 2, 2), 2.0), torch.full((1, 5), 4.0)]
    assert distillation.feature_loss(student, teacher, relative=False).item() == (4 + 16) / 2


def test_unmatched_layers_are_refused():
    with pytest.raises(ValueError, match="1 student features against 2"):
        distillation.feature_loss([torch.zeros(1, 1)], [torch.zeros(1, 1)] * 2)


def test_the_share_is_the_density_over_its_peak():
    sigma_b = torch.linspace(0, 1, 101, dtype=torch.float64)
    density_b = logit_normal_density(sigma_b)
    torch.testing.assert_close(distillation.logit_normal_share(sigma_b), density_b / density_b.max())


def test_data_leads_in_the_middle_and_the_teacher_at_the_ends():
    task_b, kd_b = torch.tensor([2.0, 2.0, 2.0]), torch.tensor([0.5, 0.5, 0.5], requires_grad=True)
    task_b.requires_grad_()
    loss_b = distillation.timestep_scaled(task_b, kd_b, torch.tensor([0.0, 0.5, 1.0]))
    assert loss_b.tolist() == pytest.approx([2, 2, 2])  # the ratio brings both to the task's size everywhere
    loss_b.sum().backward()
    assert task_b.grad.tolist() == pytest.approx([0, 1, 0])
    assert kd_b.grad.tolist() == pytest.approx([4, 0, 4])  # |task| / |kd|, without a gradient of its own


def test_the_ratio_is_capped_where_the_student_has_met_the_teacher():
    kd_b = torch.zeros(1, requires_grad=True)
    loss_b = distillation.timestep_scaled(torch.ones(1), kd_b, torch.ones(1), max_ratio=10)
    loss_b.sum().backward()
    assert loss_b.item() == 0 and kd_b.grad.item() == 10
