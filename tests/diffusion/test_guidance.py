"""Guidance identities: the textbook formulas, how many forwards they cost, and batches that mix both tasks."""

from dataclasses import replace

import pytest
import torch

from compress.diffusion.guidance import EditGuidance, TaskGuidance, TextGuidance, guided_velocity, task_guidance
from teachers.base import Condition

NULL = Condition(torch.zeros(1, 2, 3), torch.zeros(1, 3))


class Linear:
    """A velocity that depends on state, level, text and source, and remembers the rows of every call."""

    def __init__(self):
        self.rows = []

    def velocity(self, x_bchw, sigma_b, condition):
        self.rows.append(len(x_bchw))
        text_b111 = condition.tokens_btd.mean(dim=(1, 2)).reshape(-1, 1, 1, 1)
        source = 0 if condition.source_bchw is None else condition.source_bchw.tanh()
        return (x_bchw + text_b111) * sigma_b.reshape(-1, 1, 1, 1) + source * (1 + text_b111**2)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    x, source = (torch.randn(4, 2, 3, 3, generator=generator) for _ in range(2))
    source[[1, 3]] = 0  # rows 1 and 3 generate
    tokens = torch.randn(4, 2, 3, generator=generator)
    return x, torch.rand(4, generator=generator), Condition(tokens, tokens[:, 0], source_bchw=source)


def reference(x, sigma_b, condition, text_scale, image_scale):
    model = Linear()
    untexted = condition.with_text(NULL)
    uncond = model.velocity(x, sigma_b, untexted.without_source())
    image = model.velocity(x, sigma_b, untexted)
    full = model.velocity(x, sigma_b, condition)
    return uncond + text_scale * (full - image) + image_scale * (image - uncond)


def test_no_guidance_and_unit_scales_are_one_plain_forward(batch):
    x, sigma_b, condition = batch
    model = Linear()
    plain = guided_velocity(model, x, sigma_b, condition, None)
    for guidance in (TextGuidance(1.0, NULL), EditGuidance(1.0, 1.0, NULL), task_guidance(1.0, 1.0, 1.0, NULL)):
        torch.testing.assert_close(guided_velocity(model, x, sigma_b, condition, guidance), plain)
    assert model.rows == [4, 4, 4, 4]


def test_text_guidance_extrapolates_from_the_null_prompt(batch):
    x, sigma_b, condition = batch
    model = Linear()
    guided = guided_velocity(model, x, sigma_b, condition, TextGuidance(3.0, NULL))
    assert model.rows == [8]
    full, null = (model.velocity(x, sigma_b, c) for c in (condition, condition.with_text(NULL)))
    torch.testing.assert_close(guided, null + 3.0 * (full - null))
    torch.testing.assert_close(guided, full + (3.0 - 1) * (full - null))  # the other way of writing it


def test_edit_guidance_is_dreamlites_three_branches(batch):
    x, sigma_b, condition = batch
    model = Linear()
    guided = guided_velocity(model, x, sigma_b, condition, EditGuidance(3.0, 1.5, NULL))
    torch.testing.assert_close(guided, reference(x, sigma_b, condition, 3.0, 1.5))
    assert model.rows == [2 * 3 + 2 * 2]  # two rows edit with three branches, two generate with two


def test_edit_guidance_without_source_is_text_guidance(batch):
    x, sigma_b, condition = batch
    bare = replace(condition, source_bchw=None)
    first = guided_velocity(Linear(), x, sigma_b, bare, EditGuidance(3.0, 1.5, NULL))
    torch.testing.assert_close(first, guided_velocity(Linear(), x, sigma_b, bare, TextGuidance(3.0, NULL)))


def test_task_guidance_gives_every_row_its_own_rule(batch):
    x, sigma_b, condition = batch
    guidance = TaskGuidance(TextGuidance(4.0, NULL), EditGuidance(3.0, 1.5, NULL))
    guided = guided_velocity(Linear(), x, sigma_b, condition, guidance)
    torch.testing.assert_close(guided[[0, 2]], reference(x, sigma_b, condition, 3.0, 1.5)[[0, 2]])
    torch.testing.assert_close(guided[[1, 3]], reference(x, sigma_b, condition, 4.0, 1.5)[[1, 3]])


@pytest.mark.parametrize("guidance", [TextGuidance(2.5, NULL), EditGuidance(3.0, 1.5, NULL)])
def test_weights_sum_to_one_on_every_row(batch, guidance):
    weights = sum(branch.weight_b for branch in guidance.branches(batch[2]))
    torch.testing.assert_close(weights, torch.ones(4))


def test_gradients_pass_through_guidance(batch):
    x, sigma_b, condition = batch
    x = x.clone().requires_grad_()
    guided_velocity(Linear(), x, sigma_b, condition, EditGuidance(3.0, 1.5, NULL)).sum().backward()
    torch.testing.assert_close(x.grad, sigma_b.reshape(-1, 1, 1, 1).expand_as(x))
