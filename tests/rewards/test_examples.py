"""Labels come from what was drawn: they agree with a perfect reader, and every way of being wrong is in the mix."""

import numpy as np
import pytest
import torch

from compress.data.scenes.captions import sample_t2i
from compress.data.scenes.edits import sample_edit
from compress.data.scenes.verifier import judge_edit, judge_t2i, read
from compress.data.scenes.world import GRID, Scene, Thing, render
from compress.rewards import examples
from compress.rewards.judge import BROKEN, CELL_CLASSES, EMPTY
from tests.tiny import tiny_system


def test_the_symbolic_reading_is_what_the_verifier_reads_off_a_clean_picture():
    rng = np.random.default_rng(0)
    scenes = [sample_edit(rng).target for _ in range(40)]
    for scene, reading in zip(scenes, read(render(scenes)), strict=True):
        symbolic = examples.symbolic(scene)
        assert symbolic.background == reading.background
        assert len(symbolic.things) == len(reading.things)
        assert all(any(thing.same(seen) for seen in reading.things) for thing in symbolic.things)


def test_truth_is_right_and_the_untouched_source_is_not():
    rng = np.random.default_rng(0)
    t2i, edit = sample_t2i(rng), sample_edit(rng)
    assert examples.Example(t2i.prompt, None, t2i.scene, t2i.scene).right
    assert examples.Example(edit.instruction, edit.source, edit.target, edit.target).right
    assert not examples.Example(edit.instruction, edit.source, edit.target, edit.source).right
    assert not examples.Example(t2i.prompt, None, t2i.scene, t2i.scene, Scene((), t2i.scene.background), (0,)).right


@pytest.mark.parametrize("edit", [False, True])
def test_labels_agree_with_the_pixel_verifier_on_unbroken_pictures(edit):
    rng = np.random.default_rng(1)
    drawn = [example for _ in range(80) if not (example := examples.draw_example(rng, edit)).broken_cells]
    shown = read(render([example.shown for example in drawn]))
    sources = read(render([example.source or example.shown for example in drawn]))
    for example, reading, source in zip(drawn, shown, sources, strict=True):
        verdict = judge_edit(source, reading, example.meaning) if edit else judge_t2i(reading, example.meaning)
        assert verdict.ok == example.right


@pytest.mark.parametrize("edit", [False, True])
def test_both_labels_and_broken_pictures_are_common(edit):
    rng = np.random.default_rng(2)
    drawn = [examples.draw_example(rng, edit) for _ in range(300)]
    assert 0.35 < np.mean([example.right for example in drawn]) < 0.65
    assert 0.15 < np.mean([bool(example.broken_cells) for example in drawn]) < 0.35
    assert all((example.source is not None) == edit for example in drawn)


def test_a_mutation_changes_exactly_one_thing_or_the_background():
    rng = np.random.default_rng(3)
    for _ in range(60):
        scene = sample_edit(rng).source
        changed = examples.mutate(rng, scene)
        assert changed != scene
        gone, new = set(scene.things) - set(changed.things), set(changed.things) - set(scene.things)
        assert len(gone) + len(new) in ((0,) if changed.background != scene.background else (1, 2))


def test_every_look_has_a_cell_class_of_its_own():
    scene = Scene((Thing("circle", "red", "small", 0, 1), Thing("cross", "orange", "large", 3, 3)), "white")
    classes = examples.cell_classes(scene)
    assert len(classes) == GRID * GRID
    assert (classes[0], classes[1], classes[15]) == (EMPTY, BROKEN + 1, CELL_CLASSES - 1)


def test_encoded_pools_mark_broken_cells_and_blank_the_sources_of_generation():
    system = tiny_system()
    rng = np.random.default_rng(4)
    drawn = [examples.draw_example(rng, edit=bool(index % 2)) for index in range(24)]
    pool = examples.encode_pictures(system, drawn, np.random.default_rng(5))
    assert pool.image_bpp3.shape == (24, 64, 64, 3) and pool.image_bpp3.dtype == torch.uint8
    assert pool.edits_b.tolist() == [index % 2 == 1 for index in range(24)]
    assert not pool.source_bpp3[~pool.edits_b].any()
    assert pool.right_b.tolist() == [float(example.right) for example in drawn]
    for cells, example in zip(pool.cells_bg, drawn, strict=True):
        assert (cells == BROKEN).nonzero().flatten().tolist() == list(example.broken_cells)
    again = examples.encode_pictures(system, drawn, np.random.default_rng(5))
    assert all(
        torch.equal(first, second) for first, second in zip(vars(pool).values(), vars(again).values(), strict=True)
    )


def test_encoded_specs_name_what_was_drawn_and_what_it_was_made_of():
    system = tiny_system()
    rng = np.random.default_rng(6)
    drawn = [examples.draw_example(rng, edit=bool(index % 2)) for index in range(20)]
    specs = examples.encode_specs(system, drawn)
    for row, example in enumerate(drawn):
        assert specs.cells_bg[row].tolist() == examples.marked_classes(example)
        sources = [-1] * 16 if example.source is None else examples.cell_classes(example.source)
        assert specs.source_cells_bg[row].tolist() == sources
        assert (specs.source_background_b[row] < 0) == (example.source is None)


def test_parts_and_cells_of_a_right_picture_all_hold_and_some_of_a_wrong_one_do_not():
    rng = np.random.default_rng(7)
    for index in range(300):
        example = examples.draw_example(rng, edit=bool(index % 2))
        parts, fits = examples.parts_of(example), examples.fitting_cells(example)
        assert all(parts.values()) == example.right
        if example.right:
            assert all(fits)
        if example.broken_cells:
            assert not any(fits[cell] for cell in example.broken_cells)
