"""What the words of a text stand for, against texts whose meaning is known by reading them."""

from __future__ import annotations

import numpy as np
import pytest

from compress.data.scenes.captions import Prompt, Wanted, sample_t2i
from compress.data.scenes.edits import Instruction, Operation, sample_edit
from compress.data.scenes.mentions import LABELS, Mention, word_labels


def named(text):
    """{(index, word): mention} of all words that stand for something."""
    options = list(LABELS.values())
    mentions = [Mention(*(options[k][c] for k, c in enumerate(classes))) for classes in word_labels(text)]
    words = text.tagged.split()
    assert len(mentions) == len(words)
    return {(i, word): m for i, (word, m) in enumerate(zip(words, mentions, strict=True)) if m != Mention()}


def test_a_relation_names_the_first_thing_again_and_the_second_stands_opposite():
    things = (Wanted("square"), Wanted("cross"))
    assert named(Prompt("position", "a picture of a square left of a cross", things, "left of")) == {
        (5, "square"): Mention("thing", shape="square", count="one"),
        (7, "of"): Mention("left of", shape="square", count="one"),
        (9, "cross"): Mention("right of", shape="cross", count="one"),
    }


def test_a_plural_carries_its_number_and_a_background_its_color():
    prompt = Prompt("counting", "three crosses on a gray background", (Wanted("cross", None, 3),), None, "gray")
    assert named(prompt) == {
        (2, "crosses"): Mention("thing", shape="cross", count="three"),
        (5, "gray"): Mention("background", background="gray"),
    }


def test_edits_name_what_was_and_what_shall_be():
    text = "make the red square orange and push the red circle to the left edge"
    operations = (
        Operation("recolor", old=("red", "square"), new=("orange", "square")),
        Operation("move", old=("red", "circle"), edge="left"),
    )
    assert named(Instruction("compound", text, operations)) == {
        (4, "square"): Mention("recolored", "red", "square", "one"),
        (5, "orange"): Mention("new color", "orange", "square", "one"),
        (10, "circle"): Mention("moved", "red", "circle", "one"),
        (13, "left"): Mention("to the left", "red", "circle", "one"),
    }


@pytest.mark.parametrize("sample", [sample_t2i, sample_edit])
def test_every_text_of_the_world_can_be_labelled(sample):
    rng = np.random.default_rng(0)
    for _ in range(2000):
        drawn = sample(rng)
        text = drawn.prompt if sample is sample_t2i else drawn.instruction
        assert any(classes[0] for classes in word_labels(text))
