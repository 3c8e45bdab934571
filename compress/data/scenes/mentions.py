"""What the single words of a text stand for: which word completes the naming of which thing, in which role.

A denoiser that paints a cell has to look up "what shape is the blue one" or "what becomes of the red square". It can do
that by attention if the word that names a thing carries that thing's own colour, shape and role, in the same form at
every word; so the text encoder is trained to label its words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

from compress.data.scenes.captions import NUMBERS, RELATIONS, Prompt, plural
from compress.data.scenes.edits import EDGES, Instruction, Operation
from compress.data.scenes.world import BACKGROUNDS, COLORS, SHAPES

OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_OLD_ROLE = {"remove": "removed", "replace": "replaced", "recolor": "recolored", "move": "moved"}
_NEW_ROLE = {"add": "added", "replace": "replacement", "recolor": "new color"}
ROLES = (
    *("none", "thing", *RELATIONS, *_OLD_ROLE.values(), *_NEW_ROLE.values()),
    *(f"to the {edge}" for edge in EDGES),
    "background",
)
# every label of a word and its classes, in the order of Mention's fields
LABELS: dict[str, tuple[str, ...]] = {
    "role": ROLES,
    "color": ("none", *COLORS),
    "shape": ("none", *SHAPES),
    "count": NUMBERS,
    "background": ("none", *BACKGROUNDS),
}


@dataclass(frozen=True)
class Mention:
    """What one word stands for; the fields of a word that names nothing keep their defaults."""

    role: str = "none"
    color: str = "none"
    shape: str = "none"
    count: str = NUMBERS[0]
    background: str = "none"

    @property
    def classes(self) -> list[int]:
        """The class of every label of `LABELS`, in its order."""
        return [options.index(value) for options, value in zip(LABELS.values(), astuple(self), strict=True)]


def word_labels(text: Prompt | Instruction) -> list[list[int]]:
    """The classes of every word of `text.tagged`, (words, labels)."""
    words = text.tagged.split()
    named = _of_prompt(text) if isinstance(text, Prompt) else _of_instruction(text.operations)
    labels = [Mention().classes for _ in words]
    at = 0
    for word, mention in named:
        at = words.index(word, at)  # things are named in the order in which the meaning lists them
        labels[at] = mention.classes
        at += 1
    return labels


def _of_prompt(prompt: Prompt) -> Iterator[tuple[str, Mention]]:
    """(word, what it stands for), in the order of the words; a relation's last word names the first thing again."""
    for index, wanted in enumerate(prompt.wanted):
        word = plural(wanted.shape) if wanted.count > 1 else wanted.shape
        color, count = wanted.color or "none", NUMBERS[wanted.count]
        role = "thing" if prompt.relation is None or index == 0 else OPPOSITE[prompt.relation]
        yield word, Mention(role, color, wanted.shape, count)
        if prompt.relation and index == 0:
            yield prompt.relation.split()[-1], Mention(prompt.relation, color, wanted.shape, count)
    if prompt.background:
        yield prompt.background, Mention("background", background=prompt.background)


def _of_instruction(operations: Sequence[Operation]) -> Iterator[tuple[str, Mention]]:
    """The same for edits; an edge's word and a new colour's word stand for the thing as it shall be."""
    for operation in operations:
        kind, old, new = operation.kind, operation.old, operation.new
        if old:
            yield old[1], Mention(_OLD_ROLE[kind], *old, NUMBERS[1])
        if new:
            word = new[0] if kind == "recolor" else new[1]
            yield word, Mention(_NEW_ROLE[kind], *new, NUMBERS[1])
        if operation.edge and old:
            yield operation.edge, Mention(f"to the {operation.edge}", *old, NUMBERS[1])
        if operation.background:
            yield operation.background, Mention("background", background=operation.background)
