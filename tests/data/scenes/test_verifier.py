"""The verifier reads pixels exactly: it accepts every true render and no deliberately wrong one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compress.data.scenes.captions import Prompt, Wanted, sample_t2i
from compress.data.scenes.edits import sample_edit
from compress.data.scenes.verifier import judge_edit, judge_t2i, read
from compress.data.scenes.world import BACKGROUNDS, COLORS, GRID, SHAPES, SIZES, Scene, Thing, render
from compress.rewards.examples import mutate, symbolic

MANY = 300  # of each kind; the slow test takes 10,000


def accepted(seed: int, n: int) -> tuple[int, int]:
    """How many of `n` true captions and of `n` true edits are accepted."""
    rng = np.random.default_rng(seed)
    captions, edits = [sample_t2i(rng) for _ in range(n)], [sample_edit(rng) for _ in range(n)]
    pictures = read(render([sample.scene for sample in captions]))
    sources, targets = (read(render([getattr(sample, side) for sample in edits])) for side in ("source", "target"))
    t2i = sum(judge_t2i(reading, sample.prompt).ok for reading, sample in zip(pictures, captions, strict=True))
    pairs = zip(sources, targets, edits, strict=True)
    return t2i, sum(judge_edit(before, after, sample.instruction).ok for before, after, sample in pairs)


def wrongly_accepted(seed: int, n: int) -> tuple[int, int]:
    """How many of `n` wrong pictures pass: one attribute, count, relation or untouched thing was changed.

    A change that leaves the text true (another size, say, that no caption names) is drawn again.
    """
    rng = np.random.default_rng(seed)
    captions, edits = [], []
    while len(captions) < n:
        sample = sample_t2i(rng)
        wrong = mutate(rng, sample.scene)
        if not judge_t2i(symbolic(wrong), sample.prompt).ok:
            captions.append((wrong, sample.prompt))
    while len(edits) < n:
        sample = sample_edit(rng)
        wrong = mutate(rng, sample.target)
        if not judge_edit(symbolic(sample.source), symbolic(wrong), sample.instruction).ok:
            edits.append((sample.source, wrong, sample.instruction))
    pictures = read(render([scene for scene, _ in captions]))
    passed = sum(judge_t2i(reading, prompt).ok for reading, (_, prompt) in zip(pictures, captions, strict=True))
    sources, results = read(render([row[0] for row in edits])), read(render([row[1] for row in edits]))
    rows = zip(sources, results, edits, strict=True)
    return passed, sum(judge_edit(before, after, row[2]).ok for before, after, row in rows)


def test_every_true_render_is_accepted():
    assert accepted(seed=0, n=MANY) == (MANY, MANY)


def test_wrong_pictures_are_refused():
    assert wrongly_accepted(seed=0, n=MANY) == (0, 0)


@pytest.mark.slow
def test_ten_thousand_of_each():
    assert accepted(seed=1, n=10_000) == (10_000, 10_000)
    passed = wrongly_accepted(seed=1, n=10_000)
    assert max(passed) <= 10, passed  # 0.1 %


def test_every_look_on_every_background_is_read_exactly():
    scenes = [
        Scene((Thing(shape, color, size, index % GRID, index // GRID % GRID),), background)
        for index, shape in enumerate(SHAPES)
        for color in COLORS
        for size in SIZES
        for background in BACKGROUNDS
    ]
    for scene, reading in zip(scenes, read(render(scenes)), strict=True):
        assert reading.background == scene.background
        assert [(seen.shape, seen.color, seen.size) for seen in reading.things] == [
            (thing.shape, thing.color, thing.size) for thing in scene.things
        ]
        assert reading.things[0].cell == (scene.things[0].row, scene.things[0].col)


def test_copying_the_source_satisfies_no_edit():
    rng = np.random.default_rng(4)
    samples = [sample_edit(rng) for _ in range(300)]
    sources = read(render([sample.source for sample in samples]))
    assert not any(judge_edit(s, s, sample.instruction).ok for s, sample in zip(sources, samples, strict=True))


def test_a_smear_is_an_unknown_thing():
    image = render([Scene((Thing("circle", "red", "large", 1, 1),), "white")])
    image[0, 36:60, 36:60] = np.linspace((220, 40, 40), (250, 250, 250), 24)[None].astype(np.uint8)
    reading = read(image)[0]
    assert not reading.legible
    verdict = judge_t2i(reading, Prompt("colors", "a red circle", (Wanted("circle", "red"),)))
    assert not verdict.ok and "unknown" in verdict.reason


def test_a_few_stray_pixels_are_ignored():
    image = render([Scene((Thing("circle", "red", "large", 1, 1),), "white")])
    image[0, 50, 50] = (50, 90, 230)
    assert judge_t2i(read(image)[0], Prompt("colors", "", (Wanted("circle", "red"),))).ok


def test_parts_of_an_edit_are_told_apart():
    rng = np.random.default_rng(7)
    sample = next(s for s in iter(lambda: sample_edit(rng, "recolor"), None) if len(s.source.things) >= 2)
    old = sample.instruction.operations[0].old
    bystander = next(thing for thing in sample.target.things if thing in sample.source.things)
    spoiled = replace(sample.target, things=tuple(t for t in sample.target.things if t != bystander))
    source, done, lost = read(render([sample.source, sample.target, spoiled]))
    assert judge_edit(source, done, sample.instruction).parts == {"carried_out": True, "unchanged": True}
    verdict = judge_edit(source, lost, sample.instruction)
    assert verdict.parts == {"carried_out": True, "unchanged": False} and "did not stay" in verdict.reason
    verdict = judge_edit(source, source, sample.instruction)
    assert verdict.parts["carried_out"] is False and old is not None


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="uint8"):
        read(np.zeros((1, 32, 32, 3), dtype=np.uint8))
    assert read(np.zeros((0, 64, 64, 3), dtype=np.uint8)) == []
