"""Training pictures of the learned reward: right ones, near misses and broken ones, labelled by what was drawn.

Labels come from the specs (is the prompt true of the scene that was drawn?), never from pixels, so the verifier that
reads pixels stays an independent judge. Every picture goes through the autoencoder, because a denoiser's do; broken
ones are made in its latents, by leaving a cell halfway between two things, as a denoiser does that has not decided.

Shape suffixes: b batch, t text tokens, p picture rows and columns, c latent channels, g cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from compress.data.scenes.captions import Prompt, Wanted, sample_t2i
from compress.data.scenes.edits import Instruction, sample_edit
from compress.data.scenes.meaning import labels
from compress.data.scenes.verifier import Reading, Seen, judge_edit, judge_t2i
from compress.data.scenes.world import (
    BACKGROUNDS,
    COLORS,
    GRID,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    choose,
    draw_things,
    looks,
    render,
)
from compress.rewards.judge import BROKEN, EMPTY, PARTS
from students.system import DiffusionSystem, to_pixels, to_tensor

RIGHT, NEAR_MISS, OTHER, BROKEN_SHARE = 0.45, 0.25, 0.05, 0.25  # of examples, by how they are made
BLEND = (0.4, 0.6)  # how far a broken cell stands between two things
LATENT_NOISE = 0.3  # largest standard deviation; what a good denoiser still leaves
CHUNK = 128


@dataclass(frozen=True)
class Example:
    """One picture to be judged. `wrong` is a second scene that `shown` is blended with in `broken_cells`.

    `target` is one right picture, which `shown` may or may not be.
    """

    meaning: Prompt | Instruction
    source: Scene | None
    target: Scene
    shown: Scene
    wrong: Scene | None = None
    broken_cells: tuple[int, ...] = ()

    @property
    def right(self) -> bool:
        """Whether the picture does what its text asks, by what was drawn."""
        if self.broken_cells:
            return False
        shown = symbolic(self.shown)
        if isinstance(self.meaning, Prompt):
            return judge_t2i(shown, self.meaning).ok
        assert self.source is not None
        return judge_edit(symbolic(self.source), shown, self.meaning).ok


@dataclass(frozen=True)
class Pictures:
    """Encoded examples; pictures are uint8 (b, p, p, 3), `source_bpp3` is zero where nothing is edited."""

    ids_bt: Tensor
    image_bpp3: Tensor
    source_bpp3: Tensor
    edits_b: Tensor
    right_b: Tensor
    cells_bg: Tensor
    background_b: Tensor

    def __len__(self) -> int:
        return len(self.ids_bt)


@dataclass(frozen=True)
class Specs:
    """Examples as specs, without pictures: classes of cells and background of picture and source; -1 is no source.

    `meaning_bf` is the class of each field of the text's meaning, `fits_bg` whether each cell is as it should be,
    `parts_bp` whether each part of the verdict holds (nan where it does not apply).
    """

    ids_bt: Tensor
    meaning_bf: Tensor
    cells_bg: Tensor
    background_b: Tensor
    source_cells_bg: Tensor
    source_background_b: Tensor
    right_b: Tensor
    fits_bg: Tensor
    parts_bp: Tensor

    def __len__(self) -> int:
        return len(self.ids_bt)


def symbolic(scene: Scene) -> Reading:
    """What a perfect reader would see."""
    things = tuple(Seen(thing.shape, thing.color, thing.size, *thing.center_px) for thing in scene.things)
    return Reading(things, scene.background)


def mutate(rng: np.random.Generator, scene: Scene) -> Scene:
    """The scene with one thing added, dropped, recoloured, reshaped, resized or moved, or on another background."""
    kinds = ("add", "background", *(("drop", "color", "shape", "size", "move") if scene.things else ()))
    kind = choose(rng, kinds)
    free = sorted(set(range(GRID * GRID)) - {thing.row * GRID + thing.col for thing in scene.things})
    if kind == "background":
        return replace(scene, background=choose(rng, [name for name in BACKGROUNDS if name != scene.background]))
    if kind == "add":
        return replace(scene, things=scene.things + draw_things(rng, [choose(rng, looks(False))], [choose(rng, free)]))
    index = int(rng.integers(len(scene.things)))
    rest, thing = scene.things[:index] + scene.things[index + 1 :], scene.things[index]
    if kind == "drop":
        return replace(scene, things=rest)
    return replace(scene, things=(*rest, _altered(rng, thing, kind, choose(rng, free))))


def _altered(rng: np.random.Generator, thing: Thing, kind: str, cell: int) -> Thing:
    if kind == "move":
        return replace(thing, row=cell // GRID, col=cell % GRID)
    if kind == "size":
        return replace(thing, size=next(size for size in SIZES if size != thing.size))
    axis = 0 if kind == "color" else 1
    now = (thing.color, thing.shape)
    options = [look for look in looks(False) if look[axis] != now[axis] and look[1 - axis] == now[1 - axis]]
    color, shape = choose(rng, options)
    return replace(thing, color=color, shape=shape)


def draw_example(rng: np.random.Generator, edit: bool) -> Example:
    """One example of either task; about half of them are right."""
    source: Scene | None = None
    meaning: Prompt | Instruction
    if edit:
        drawn = sample_edit(rng)
        meaning, source, shown = drawn.instruction, drawn.source, drawn.target
        other = drawn.source
    else:
        sample = sample_t2i(rng)
        meaning, shown = sample.prompt, sample.scene
        other = sample_t2i(rng, task=sample.prompt.task).scene
    chance = rng.random()
    if chance < RIGHT:
        return Example(meaning, source, shown, shown)
    if chance < RIGHT + NEAR_MISS:
        return Example(meaning, source, shown, mutate(rng, shown))
    if chance < RIGHT + NEAR_MISS + OTHER:
        return Example(meaning, source, shown, other)
    return _broken(rng, Example(meaning, source, shown, shown))


def _broken(rng: np.random.Generator, example: Example) -> Example:
    """A thing stays halfway to nothing or to quite another thing, or an empty cell halfway to a thing."""
    things = example.shown.things
    if things and rng.random() < 0.7:
        index = int(rng.integers(len(things)))
        thing = things[index]
        rest = things[:index] + things[index + 1 :]
        options = [look for look in looks(False) if look[0] != thing.color and look[1] != thing.shape]
        color, shape = choose(rng, options)
        ghost = rng.random() < 0.5
        wrong = replace(example.shown, things=rest if ghost else (*rest, replace(thing, color=color, shape=shape)))
    else:
        free = sorted(set(range(GRID * GRID)) - {thing.row * GRID + thing.col for thing in things})
        thing = draw_things(rng, [choose(rng, looks(False))], [choose(rng, free)])[0]
        wrong = replace(example.shown, things=(*things, thing))
    return replace(example, wrong=wrong, broken_cells=(thing.row * GRID + thing.col,))


def cell_classes(scene: Scene) -> list[int]:
    """What stands in each cell of the grid, as a class of the reward's reader."""
    classes = [EMPTY] * (GRID * GRID)
    for thing in scene.things:
        look = (SHAPES.index(thing.shape) * len(COLORS) + COLORS.index(thing.color)) * len(SIZES)
        classes[thing.row * GRID + thing.col] = max(EMPTY, BROKEN) + 1 + look + SIZES.index(thing.size)
    return classes


def marked_classes(example: Example) -> list[int]:
    """What stands in each cell of the picture, its broken cells marked."""
    classes = cell_classes(example.shown)
    return [BROKEN if cell in example.broken_cells else kind for cell, kind in enumerate(classes)]


def fitting_cells(example: Example) -> list[bool]:
    """Whether what stands in each cell is as it should be.

    In generation: nothing, or a thing that was asked for (whatever the count and place of it). In editing: what the
    target has there; all of a right picture fits even where it is not the drawn target.
    """
    classes, right = marked_classes(example), example.right
    if isinstance(example.meaning, Prompt):
        wanted = [(thing.color, thing.shape) for thing in example.meaning.wanted]
        stray = {
            thing.row * GRID + thing.col
            for thing in example.shown.things
            if (thing.color, thing.shape) not in wanted and (None, thing.shape) not in wanted
        }
        return [kind != BROKEN and cell not in stray for cell, kind in enumerate(classes)]
    return [right or kind == meant for kind, meant in zip(classes, cell_classes(example.target), strict=True)]


def parts_of(example: Example) -> dict[str, bool]:
    """The parts of the verdict that apply to an example, and whether each holds."""
    if example.broken_cells:
        return {"whole": False}
    shown, meaning = symbolic(example.shown), example.meaning
    if isinstance(meaning, Instruction):
        assert example.source is not None
        return {"whole": True, **judge_edit(symbolic(example.source), shown, meaning).parts}
    names = ("first_count", "second_count")
    parts = {name: _count(shown, item) == item.count for name, item in zip(names, meaning.wanted, strict=False)}
    counted = all(parts.values())
    total = len(shown.things) == sum(item.count for item in meaning.wanted)
    parts |= {"whole": True, "total": total}
    if meaning.relation and counted and total:
        parts["relation"] = judge_t2i(shown, replace(meaning, background=None)).ok
    if meaning.background:
        parts["background"] = shown.background == meaning.background
    return parts


def _count(reading: Reading, item: Wanted) -> int:
    return sum(thing.shape == item.shape and item.color in (None, thing.color) for thing in reading.things)


def encode_specs(system: DiffusionSystem, examples: Sequence[Example]) -> Specs:
    """The examples as classes; nothing is drawn."""
    nothing = [-1] * (GRID * GRID)
    sources = [example.source for example in examples]
    return Specs(
        system.tokenize([example.meaning.tagged for example in examples]),
        torch.tensor([labels(example.meaning) for example in examples]),
        torch.tensor([marked_classes(example) for example in examples]),
        torch.tensor([BACKGROUNDS.index(example.shown.background) for example in examples]),
        torch.tensor([nothing if source is None else cell_classes(source) for source in sources]),
        torch.tensor([-1 if source is None else BACKGROUNDS.index(source.background) for source in sources]),
        torch.tensor([example.right for example in examples], dtype=torch.float32),
        torch.tensor([fitting_cells(example) for example in examples], dtype=torch.float32),
        torch.tensor([[parts_of(example).get(part, math.nan) for part in PARTS] for example in examples]),
    )


def encode_pictures(system: DiffusionSystem, examples: Sequence[Example], rng: np.random.Generator) -> Pictures:
    """Draws the examples through the autoencoder; all randomness (blends, latent noise) from `rng`."""
    parts = [_encode_chunk(system, examples[start : start + CHUNK], rng) for start in range(0, len(examples), CHUNK)]
    return Pictures(*(torch.cat(values) for values in zip(*parts, strict=True)))


@torch.no_grad()
def _encode_chunk(system: DiffusionSystem, examples: Sequence[Example], rng: np.random.Generator) -> tuple[Tensor, ...]:
    shown_bchw = system.encode_image(to_tensor(render([example.shown for example in examples]))).float()
    wrong = [example.wrong or example.shown for example in examples]
    wrong_bchw = system.encode_image(to_tensor(render(wrong))).float()
    cells_bg = torch.tensor([marked_classes(example) for example in examples])
    blend_bg = torch.from_numpy(rng.uniform(*BLEND, cells_bg.shape)).float() * (cells_bg == BROKEN)
    side = shown_bchw.shape[2] // GRID
    blend_b1hw = blend_bg.reshape(-1, 1, GRID, GRID).repeat_interleave(side, 2).repeat_interleave(side, 3)
    strength_b111 = torch.from_numpy(rng.uniform(0, LATENT_NOISE, (len(examples), 1, 1, 1))).float()
    noise_bchw = torch.from_numpy(rng.standard_normal(tuple(shown_bchw.shape), dtype=np.float32))
    z_bchw = torch.lerp(shown_bchw, wrong_bchw, blend_b1hw.to(shown_bchw)) + (strength_b111 * noise_bchw).to(shown_bchw)
    edits_b = torch.tensor([example.source is not None for example in examples])
    sources = system.encode_image(to_tensor(render([example.source or example.shown for example in examples])))
    source_bpp3 = torch.from_numpy(to_pixels(system.decode(sources)))
    source_bpp3[~edits_b] = 0
    return (
        system.tokenize([example.meaning.tagged for example in examples]),
        torch.from_numpy(to_pixels(system.decode(z_bchw))),
        source_bpp3,
        edits_b,
        torch.tensor([example.right for example in examples], dtype=torch.float32),
        cells_bg,
        torch.tensor([BACKGROUNDS.index(example.shown.background) for example in examples]),
    )
