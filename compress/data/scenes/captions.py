"""Captions in GenEval's six kinds (arXiv 2310.11513), with what a picture must show to satisfy each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compress.data.scenes.world import BACKGROUNDS, COLORS, GRID, SHAPES, Scene, choose, draw_things, looks

T2I_TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
RELATIONS = ("left of", "right of", "above", "below")
NUMBERS = ("zero", "one", "two", "three", "four")
TAG = "[generate]"

OPENINGS = ("", "a picture of ", "an image with ", "draw ", "there is ")
BACKGROUND_SHARE = 0.25  # of captions that name the background


@dataclass(frozen=True)
class Wanted:
    """`count` things of this shape and colour (None: any colour)."""

    shape: str
    color: str | None = None
    count: int = 1


@dataclass(frozen=True)
class Prompt:
    """A caption and its exact meaning: these things and no others, the relation of the first two, the background."""

    task: str
    text: str
    wanted: tuple[Wanted, ...]
    relation: str | None = None
    background: str | None = None

    @property
    def tagged(self) -> str:
        """The text as the models read it, with the task tag in front."""
        return f"{TAG} {self.text}"


@dataclass(frozen=True)
class T2ISample:
    """A picture's spec and a caption that is true of it."""

    scene: Scene
    prompt: Prompt


def article(word: str) -> str:
    """`word` with its indefinite article."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def plural(shape: str) -> str:
    """The plural of a shape's name."""
    return shape + ("es" if shape.endswith("ss") else "s")


def sample_t2i(rng: np.random.Generator, held_out: bool = False, task: str | None = None) -> T2ISample:
    """One random picture and caption; `held_out` draws a pair that training never shows (colour tasks only)."""
    task = task or choose(rng, ("colors", "color_attr") if held_out else T2I_TASKS)
    if held_out and task not in ("colors", "color_attr"):
        raise ValueError(f"held-out pairs can be named only by 'colors' and 'color_attr', not by {task!r}")
    pairs = _pairs(rng, task, held_out)
    relation = choose(rng, RELATIONS) if task == "position" else None
    cells = _cells_in_relation(rng, relation) if relation else None
    scene = Scene(draw_things(rng, pairs, cells), choose(rng, BACKGROUNDS))
    wanted = _wanted(task, pairs)
    background = scene.background if rng.random() < BACKGROUND_SHARE else None
    text = choose(rng, OPENINGS) + _body(wanted, relation)
    if background:
        text += f" on {article(background)} background"
    return T2ISample(scene, Prompt(task, text, wanted, relation, background))


def _pairs(rng: np.random.Generator, task: str, held_out: bool) -> list[tuple[str, str]]:
    """The (colour, shape) of each thing, as the task needs them."""
    first = choose(rng, looks(held_out))
    if task in ("single_object", "colors"):
        return [first]
    if task == "counting":
        shape = choose(rng, SHAPES)
        options = [pair for pair in looks(False) if pair[1] == shape]
        return [choose(rng, options) for _ in range(int(rng.integers(2, len(NUMBERS))))]
    others = [pair for pair in looks(False) if pair[1] != first[1] and (task != "color_attr" or pair[0] != first[0])]
    second = choose(rng, others)
    return [first, second] if rng.random() < 0.5 else [second, first]


def _wanted(task: str, pairs: Sequence[tuple[str, str]]) -> tuple[Wanted, ...]:
    if task == "counting":
        return (Wanted(pairs[0][1], None, len(pairs)),)
    named = task in ("colors", "color_attr")
    return tuple(Wanted(shape, color if named else None) for color, shape in pairs)


def _cells_in_relation(rng: np.random.Generator, relation: str) -> list[int]:
    """Two cells, the first standing in `relation` to the second."""
    near, far = sorted(rng.permutation(GRID)[:2].tolist())
    across = rng.integers(GRID, size=2).tolist()
    along = (near, far) if relation in ("left of", "above") else (far, near)
    if relation in ("left of", "right of"):
        return [across[k] * GRID + along[k] for k in range(2)]
    return [along[k] * GRID + across[k] for k in range(2)]


def _body(wanted: tuple[Wanted, ...], relation: str | None) -> str:
    if wanted[0].count > 1:
        return f"{NUMBERS[wanted[0].count]} {plural(wanted[0].shape)}"
    names = [article(" ".join(filter(None, (item.color, item.shape)))) for item in wanted]
    return f" {relation or 'and'} ".join(names)


def words() -> set[str]:
    """Every word that a caption can contain (for the tokenizer)."""
    phrases = [*OPENINGS, *SHAPES, *map(plural, SHAPES), *COLORS, *BACKGROUNDS, *RELATIONS, *NUMBERS]
    return {word for phrase in phrases for word in phrase.split()} | {"a", "an", "and", "on", "background", TAG}
