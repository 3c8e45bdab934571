"""The world draws what its specs say, the same from the same seed, and never a held-out pair for training."""

from __future__ import annotations

import numpy as np
import pytest

from compress.data.scenes.captions import NUMBERS, T2I_TASKS, sample_t2i
from compress.data.scenes.edits import EDIT_TASKS, edit_mask_hw, sample_edit
from compress.data.scenes.world import (
    CELL_PX,
    COLORS,
    HELD_OUT,
    IMAGE_PX,
    PALETTE,
    RADIUS_PX,
    SHAPES,
    Scene,
    Thing,
    coverage_hw,
    looks,
    render,
)


def test_an_empty_scene_is_its_background():
    images = render([Scene((), "beige")])
    assert images.shape == (1, IMAGE_PX, IMAGE_PX, 3) and images.dtype == np.uint8
    assert (images == PALETTE["beige"]).all()


def test_a_thing_stands_in_its_cell_and_nowhere_else():
    image = render([Scene((Thing("square", "red", "large", 1, 3),), "black")])[0]
    row, col = 1 * CELL_PX + CELL_PX // 2, 3 * CELL_PX + CELL_PX // 2
    assert tuple(image[row, col]) == PALETTE["red"]
    changed = (image != PALETTE["black"]).any(-1)
    assert changed[CELL_PX : 2 * CELL_PX, 3 * CELL_PX :].sum() == changed.sum() > 100


def test_coverage_areas_are_those_of_geometry():
    radius = RADIUS_PX["large"]
    assert coverage_hw("circle", "large").sum() == pytest.approx(np.pi * radius**2, rel=0.01)
    assert coverage_hw("square", "large").sum() == pytest.approx((2 * 0.9 * radius) ** 2, rel=0.03)
    assert coverage_hw("triangle", "large").sum() == pytest.approx(2 * radius**2, rel=0.02)
    with pytest.raises(ValueError, match="hexagon"):
        coverage_hw("hexagon", "large")


def test_the_same_seed_draws_the_same_samples():
    def draw(seed):
        rng = np.random.default_rng(seed)
        return [sample_t2i(rng) for _ in range(50)] + [sample_edit(rng) for _ in range(50)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_training_never_shows_a_held_out_pair():
    rng = np.random.default_rng(0)
    scenes = [sample_t2i(rng).scene for _ in range(2000)]
    for _ in range(2000):
        sample = sample_edit(rng)
        scenes += [sample.source, sample.target]
    seen = {(thing.color, thing.shape) for scene in scenes for thing in scene.things}
    assert seen == set(looks(False))
    assert len(seen) == len(COLORS) * len(SHAPES) - len(HELD_OUT)


def test_held_out_prompts_name_a_held_out_pair():
    rng = np.random.default_rng(0)
    for _ in range(200):
        prompt = sample_t2i(rng, held_out=True).prompt
        assert any((wanted.color, wanted.shape) in HELD_OUT for wanted in prompt.wanted)
    with pytest.raises(ValueError, match="counting"):
        sample_t2i(rng, held_out=True, task="counting")


@pytest.mark.parametrize("task", T2I_TASKS)
def test_captions_say_what_is_drawn(task):
    rng = np.random.default_rng(1)
    for _ in range(100):
        scene, prompt = (sample := sample_t2i(rng, task=task)).scene, sample.prompt
        assert prompt.task == task and len(scene.things) == sum(wanted.count for wanted in prompt.wanted)
        for wanted in prompt.wanted:
            assert wanted.shape in prompt.text
            assert wanted.color is None or wanted.color in prompt.text.split()
            assert wanted.count == 1 or NUMBERS[wanted.count] in prompt.text.split()
        assert (prompt.relation or "") in prompt.text
        assert prompt.background is None or prompt.text.endswith(f"{prompt.background} background")


@pytest.mark.parametrize("task", EDIT_TASKS)
def test_edits_change_the_masked_pixels_only(task):
    rng = np.random.default_rng(2)
    for _ in range(100):
        sample = sample_edit(rng, task)
        before, after = render([sample.source, sample.target])
        changed = (before != after).any(-1)
        mask = edit_mask_hw(sample.source, sample.target)
        assert changed.any() and not (changed & ~mask).any()
        assert sample.instruction.task == task
        assert len(sample.instruction.operations) == (2 if task == "compound" else 1)


def test_texts_vary_in_wording():
    rng = np.random.default_rng(5)
    for task in EDIT_TASKS[:-1]:
        verbs = {sample_edit(rng, task).instruction.text.split()[0] for _ in range(60)}
        assert len(verbs) >= 3, task
    openings = {sample_t2i(rng, task="colors").prompt.text.split()[0] for _ in range(100)}
    assert len(openings) >= 4
    assert set(SHAPES) <= {word for _ in range(200) for word in sample_t2i(rng).prompt.text.split()}
