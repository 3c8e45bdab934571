"""Edits in those of ImgEdit's kinds (arXiv 2505.20275) that a scene can express: source, target, instruction, mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from compress.data.scenes.captions import article
from compress.data.scenes.world import (
    BACKGROUNDS,
    CELL_PX,
    COLORS,
    GRID,
    IMAGE_PX,
    SHAPES,
    Scene,
    Thing,
    choose,
    draw_things,
    looks,
)

SIMPLE_TASKS = ("add", "remove", "replace", "recolor", "move", "background")
EDIT_TASKS = (*SIMPLE_TASKS, "compound")
EDGES = ("left", "right", "top", "bottom")
TAG = "[edit]"
MAX_THINGS = 4

WORDINGS: dict[str, tuple[str, ...]] = {
    "add": ("add {new}", "put {new} in the picture", "draw {new}"),
    "remove": ("remove the {old}", "delete the {old}", "take the {old} away"),
    "replace": ("replace the {old} with {new}", "change the {old} into {new}", "swap the {old} for {new}"),
    "recolor": ("make the {old} {color}", "paint the {old} {color}", "change the color of the {old} to {color}"),
    "move": (
        "move the {old} to the {edge} edge",
        "push the {old} to the {edge} edge",
        "put the {old} at the {edge} edge",
    ),
    "background": ("change the background to {color}", "make the background {color}", "set {indefinite} background"),
}


@dataclass(frozen=True)
class Operation:
    """One step of an instruction. `old` is the (colour, shape) it speaks of, `new` the (colour, shape) it asks for."""

    kind: str
    old: tuple[str, str] | None = None
    new: tuple[str, str] | None = None
    edge: str | None = None
    background: str | None = None


@dataclass(frozen=True)
class Instruction:
    """An edit in words and its exact meaning, one or two operations."""

    task: str
    text: str
    operations: tuple[Operation, ...]

    @property
    def tagged(self) -> str:
        """The text as the models read it, with the task tag in front."""
        return f"{TAG} {self.text}"


@dataclass(frozen=True)
class EditSample:
    """A source picture, an instruction and one right result of it."""

    source: Scene
    target: Scene
    instruction: Instruction


def sample_edit(rng: np.random.Generator, task: str | None = None) -> EditSample:
    """One random edit; no picture of it shows a held-out pair."""
    task = task or choose(rng, EDIT_TASKS)
    kinds = (task,) if task != "compound" else tuple(choose(rng, _KIND_PAIRS))
    while True:  # an operation may be impossible in a scene (no free edge cell); then another scene is drawn
        count = int(rng.integers(max(1, sum(kind not in ("add", "background") for kind in kinds)), MAX_THINGS + 1))
        order = rng.permutation(len(looks(False)))[:count]
        source = Scene(draw_things(rng, [looks(False)[k] for k in order]), choose(rng, BACKGROUNDS))
        operations: list[Operation] = []
        target = source
        for kind in kinds:
            touched = {operation.old for operation in operations} | {operation.new for operation in operations}
            operation = _APPLY[kind](rng, source, touched)
            changed = apply(rng, target, operation) if operation else None
            if operation is None or changed is None:
                break
            target = changed
            operations.append(operation)
        else:
            text = " and ".join(_word(rng, operation) for operation in operations)
            return EditSample(source, target, Instruction(task, text, tuple(operations)))


def apply(rng: np.random.Generator, scene: Scene, operation: Operation) -> Scene | None:
    """`scene` after `operation`, or None where it cannot be done (the edge cell is taken, no cell is free)."""
    if operation.kind == "background":
        assert operation.background is not None
        return replace(scene, background=operation.background)
    if operation.kind == "add":
        assert operation.new is not None
        taken = {thing.row * GRID + thing.col for thing in scene.things}
        free = [cell for cell in range(GRID * GRID) if cell not in taken]
        return replace(scene, things=scene.things + draw_things(rng, [operation.new], [choose(rng, free)]))
    old = next(thing for thing in scene.things if (thing.color, thing.shape) == operation.old)
    rest = tuple(thing for thing in scene.things if thing is not old)
    if operation.kind == "remove":
        return replace(scene, things=rest)
    if operation.kind == "move":
        row, col = edge_cell(old.row, old.col, operation.edge)
        if any((thing.row, thing.col) == (row, col) for thing in scene.things):
            return None
        return replace(scene, things=(*rest, replace(old, row=row, col=col)))
    assert operation.new is not None
    color, shape = operation.new
    return replace(scene, things=(*rest, replace(old, color=color, shape=shape)))


def edge_cell(row: int, col: int, edge: str | None) -> tuple[int, int]:
    """Where a thing of cell (row, col) ends when it is pushed to an edge: the same row or column, at the rim."""
    return {"left": (row, 0), "right": (row, GRID - 1), "top": (0, col), "bottom": (GRID - 1, col)}[edge or ""]


def edit_mask_hw(source: Scene, target: Scene) -> np.ndarray:
    """Cells in which the pictures differ, (64, 64) bool; everything where the background changes."""
    if source.background != target.background:
        return np.ones((IMAGE_PX, IMAGE_PX), dtype=bool)
    cells = np.zeros((GRID, GRID), dtype=bool)
    for thing in set(source.things) ^ set(target.things):
        cells[thing.row, thing.col] = True
    return cells.repeat(CELL_PX, axis=0).repeat(CELL_PX, axis=1)


def _pick(rng: np.random.Generator, scene: Scene, touched: set) -> Thing | None:
    options = [thing for thing in scene.things if (thing.color, thing.shape) not in touched]
    return choose(rng, options) if options else None


def _new_look(rng: np.random.Generator, scene: Scene, touched: set) -> tuple[str, str]:
    taken = {(thing.color, thing.shape) for thing in scene.things} | touched
    return choose(rng, [look for look in looks(False) if look not in taken])


def _add(rng: np.random.Generator, scene: Scene, touched: set) -> Operation:
    return Operation("add", new=_new_look(rng, scene, touched))


def _remove(rng: np.random.Generator, scene: Scene, touched: set) -> Operation | None:
    thing = _pick(rng, scene, touched)
    return Operation("remove", old=(thing.color, thing.shape)) if thing else None


def _replace(rng: np.random.Generator, scene: Scene, touched: set) -> Operation | None:
    thing = _pick(rng, scene, touched)
    if thing is None:
        return None
    taken = {(other.color, other.shape) for other in scene.things} | touched
    options = [look for look in looks(False) if look not in taken and look[1] != thing.shape]
    return Operation("replace", old=(thing.color, thing.shape), new=choose(rng, options))


def _recolor(rng: np.random.Generator, scene: Scene, touched: set) -> Operation | None:
    thing = _pick(rng, scene, touched)
    if thing is None:
        return None
    taken = {(other.color, other.shape) for other in scene.things} | touched
    options = [look for look in looks(False) if look[1] == thing.shape and look not in taken]
    return Operation("recolor", old=(thing.color, thing.shape), new=choose(rng, options)) if options else None


def _move(rng: np.random.Generator, scene: Scene, touched: set) -> Operation | None:
    thing = _pick(rng, scene, touched)
    if thing is None:
        return None
    edge = choose(rng, EDGES)
    if edge_cell(thing.row, thing.col, edge) == (thing.row, thing.col):
        return None
    return Operation("move", old=(thing.color, thing.shape), edge=edge)


def _background(rng: np.random.Generator, scene: Scene, touched: set) -> Operation:
    return Operation("background", background=choose(rng, [name for name in BACKGROUNDS if name != scene.background]))


_APPLY: dict[str, Callable[[np.random.Generator, Scene, set], Operation | None]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "recolor": _recolor,
    "move": _move,
    "background": _background,
}
_KIND_PAIRS = tuple((first, second) for first in SIMPLE_TASKS for second in SIMPLE_TASKS if first != second)


def _word(rng: np.random.Generator, operation: Operation) -> str:
    old, new = operation.old, operation.new
    color = operation.background or (new[0] if new else "")
    return choose(rng, WORDINGS[operation.kind]).format(
        old=" ".join(old) if old else "",
        new=article(" ".join(new)) if new else "",
        color=color,
        indefinite=article(color) if color else "",
        edge=operation.edge,
    )


def words() -> set[str]:
    """Every word that an instruction can contain (for the tokenizer)."""
    fixed = {word for wordings in WORDINGS.values() for text in wordings for word in text.split() if "{" not in word}
    return fixed | {*COLORS, *BACKGROUNDS, *SHAPES, *EDGES, "a", "an", "and", TAG}
