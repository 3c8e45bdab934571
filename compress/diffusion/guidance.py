"""Classifier-free guidance as a weighted sum of branches, computed in one forward.

A guidance object says which branches each row needs and with what weight; weights of a row sum to 1, and a branch
whose weight is zero on a row is not computed for it. So unit scales cost exactly one plain forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from compress.diffusion.prediction import like
from teachers.base import Condition, VelocityModel


@dataclass(frozen=True)
class Branch:
    """One way to condition every row, and its weight on each; weight_b has shape (b,)."""

    condition: Condition
    weight_b: Tensor


class Guidance(Protocol):
    """A rule that combines several conditions of the same batch."""

    def branches(self, condition: Condition) -> Sequence[Branch]:
        """The branches of a batch; their weights sum to 1 on every row."""
        ...


def _filled(condition: Condition, value: float) -> Tensor:
    return condition.tokens_btd.new_full((len(condition),), value, dtype=torch.float32)


@dataclass(frozen=True)
class TextGuidance:
    """v(null) + scale * (v(text) - v(null)); Ho and Salimans, arXiv 2207.12598 eq. 6 with scale = w + 1.

    The source panel, if any, stays in both branches. `null` is the condition of the empty prompt, batch 1.
    """

    scale: float
    null: Condition

    def branches(self, condition: Condition) -> Sequence[Branch]:
        return (
            Branch(condition.with_text(self.null), _filled(condition, 1 - self.scale)),
            Branch(condition, _filled(condition, self.scale)),
        )


@dataclass(frozen=True)
class EditGuidance:
    """uncond + text_scale * (full - image) + image_scale * (image - uncond), as in DreamLite's pipeline.

    uncond = null text and zero panel, image = null text and source, full = text and source. A row that generates has
    a zero panel, hence image = uncond there and the rule becomes `TextGuidance(text_scale)`: two branches suffice.
    """

    text_scale: float
    image_scale: float
    null: Condition

    def branches(self, condition: Condition) -> Sequence[Branch]:
        edits_b = condition.edits_b
        nothing_b = _filled(condition, 0.0)
        image_scale_b = torch.where(edits_b, _filled(condition, self.image_scale), _filled(condition, 1.0))
        text_scale_b = _filled(condition, self.text_scale)
        image_b = torch.where(edits_b, image_scale_b - text_scale_b, nothing_b)
        untexted = condition.with_text(self.null)
        return (
            Branch(untexted.without_source(), 1 - image_b - text_scale_b),
            Branch(untexted, image_b),
            Branch(condition, text_scale_b),
        )


@dataclass(frozen=True)
class TaskGuidance:
    """`generate` on rows without a source, `edit` on rows with one; a batch may hold both."""

    generate: TextGuidance
    edit: EditGuidance

    def branches(self, condition: Condition) -> Sequence[Branch]:
        edits_b = condition.edits_b
        nothing_b = _filled(condition, 0.0)
        return [
            *(
                Branch(branch.condition, torch.where(edits_b, nothing_b, branch.weight_b))
                for branch in self.generate.branches(condition)
            ),
            *(
                Branch(branch.condition, torch.where(edits_b, branch.weight_b, nothing_b))
                for branch in self.edit.branches(condition)
            ),
        ]


def task_guidance(generate_text: float, edit_text: float, edit_image: float, null: Condition) -> TaskGuidance:
    """The guidance of a unified model: a text scale for generation, a text and an image scale for editing."""
    return TaskGuidance(TextGuidance(generate_text, null), EditGuidance(edit_text, edit_image, null))


def guided_velocity(
    model: VelocityModel, x_bchw: Tensor, sigma_b: Tensor, condition: Condition, guidance: Guidance | None
) -> Tensor:
    """The guided velocity, x's shape: all needed branches of all rows go through the model as one batch."""
    if guidance is None:
        return model.velocity(x_bchw, sigma_b, condition)
    parts = [(branch, branch.weight_b.nonzero().flatten()) for branch in guidance.branches(condition)]
    parts = [(branch, rows) for branch, rows in parts if len(rows)]
    if len(parts) == 1 and bool((parts[0][0].weight_b == 1).all()):
        return model.velocity(x_bchw, sigma_b, parts[0][0].condition)
    rows = torch.cat([rows for _, rows in parts])
    weight = torch.cat([branch.weight_b[rows] for branch, rows in parts]).to(x_bchw)
    conditions = Condition.cat([branch.condition[rows] for branch, rows in parts])
    velocity = model.velocity(x_bchw[rows], sigma_b[rows], conditions)
    return torch.zeros_like(x_bchw).index_add(0, rows, velocity * like(weight, x_bchw))
