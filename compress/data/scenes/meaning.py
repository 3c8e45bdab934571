"""A text's meaning as a fixed set of small classifications: what the text encoder learns to read out of words."""

from __future__ import annotations

from compress.data.scenes import captions, edits
from compress.data.scenes.captions import NUMBERS, RELATIONS, Prompt, Wanted
from compress.data.scenes.edits import EDGES, SIMPLE_TASKS, Instruction, Operation
from compress.data.scenes.world import BACKGROUNDS, COLORS, SHAPES

_COLOR = ("none", *COLORS)
_SHAPE = ("none", *SHAPES)
_OPERATION: dict[str, tuple[str, ...]] = {
    "kind": ("none", *SIMPLE_TASKS),
    "old_color": _COLOR,
    "old_shape": _SHAPE,
    "new_color": _COLOR,
    "new_shape": _SHAPE,
    "edge": ("none", *EDGES),
    "background": ("none", *BACKGROUNDS),
}
FIELDS: dict[str, tuple[str, ...]] = {
    "task": ("none", "generate", "edit"),
    "count": NUMBERS,
    "first_color": _COLOR,
    "first_shape": _SHAPE,
    "second_color": _COLOR,
    "second_shape": _SHAPE,
    "relation": ("none", *RELATIONS),
    "background": ("none", *BACKGROUNDS),
    **{f"operation1_{name}": options for name, options in _OPERATION.items()},
    **{f"operation2_{name}": options for name, options in _OPERATION.items()},
}


def labels(text: Prompt | Instruction | None) -> list[int]:
    """The class of every field of `FIELDS`, in its order; None is the empty prompt."""
    values: dict[str, str | None] = {}
    if isinstance(text, Prompt):
        first, second = (*text.wanted, Wanted("none"))[:2]
        values = {
            "task": "generate",
            "count": NUMBERS[sum(wanted.count for wanted in text.wanted)],
            "first_color": first.color,
            "first_shape": first.shape,
            "second_color": second.color,
            "second_shape": second.shape,
            "relation": text.relation,
            "background": text.background,
        }
    elif isinstance(text, Instruction):
        values = {"task": "edit"}
        for index, operation in enumerate(text.operations, start=1):
            values |= {f"operation{index}_{name}": value for name, value in _operation(operation).items()}
    return [options.index(values.get(name) or options[0]) for name, options in FIELDS.items()]


def _operation(operation: Operation) -> dict[str, str | None]:
    old, new = operation.old or (None, None), operation.new or (None, None)
    return {
        "kind": operation.kind,
        "old_color": old[0],
        "old_shape": old[1],
        "new_color": new[0],
        "new_shape": new[1],
        "edge": operation.edge,
        "background": operation.background,
    }


def vocabulary() -> list[str]:
    """Every word of the world, sorted; the tokenizer is built from it."""
    return sorted(captions.words() | edits.words())
