"""The judge of the learned reward: does what is seen do what is meant? Both come as probabilities, out comes a logit.

It is given how far seen and meant agree (products of probabilities, a cell at a time), which a network would take long
to find by itself, and learns what follows from that: counting, relations, what may have changed and what may not.

Shape suffixes: b batch, g cells of the grid, k classes, d width, f features, p parts of the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.data.scenes.meaning import FIELDS
from compress.data.scenes.world import BACKGROUNDS, COLORS, GRID, SHAPES, SIZES

EMPTY, BROKEN = 0, 1
CELL_CLASSES = 2 + len(SHAPES) * len(COLORS) * len(SIZES)  # empty, broken, or one thing
MEANING_CLASSES = sum(len(options) for options in FIELDS.values())
PARTS = ("first_count", "second_count", "total", "relation", "background", "carried_out", "unchanged", "whole")
ITEMS = ("first", "second", *(f"operation{step}_{which}" for step in (1, 2) for which in ("old", "new")))
NAMED_BACKGROUNDS = ("background", "operation1_background", "operation2_background")


@dataclass(frozen=True)
class Look:
    """What a picture shows: probabilities of each cell's classes (b, g, k) and of the backgrounds (b, k)."""

    cells_bgk: Tensor
    background_bk: Tensor

    def to(self, device: torch.device) -> Look:
        return Look(self.cells_bgk.to(device), self.background_bk.to(device))


@dataclass(frozen=True)
class Judgement:
    """Logits: the picture is right (b,), each part of that holds (b, p), each cell is as it should be (b, g)."""

    right_b: Tensor
    parts_bp: Tensor
    fits_bg: Tensor


def split_meaning(meaning_bk: Tensor) -> dict[str, Tensor]:
    """The probabilities of every field's options, (b, options) each, from all of them side by side."""
    parts = meaning_bk.split([len(options) for options in FIELDS.values()], dim=1)
    return dict(zip(FIELDS, parts, strict=True))


def agreements(picture: Look, source: Look, meaning_bk: Tensor) -> tuple[Tensor, Tensor]:
    """How far seen and meant agree: (b, g, 16) a cell and (b, 4) for the background, each a probability.

    A cell: that the picture, and that the source, shows each thing the text names; that both show the same class,
    shape, colour, size. The background: that it is each one the text names, that it is the source's.
    """
    fields = split_meaning(meaning_bk)
    looks = [_by_look(look.cells_bgk) for look in (picture, source)]
    cells = []
    for item in ITEMS:
        shape_bs = fields[f"{item}_shape"][:, 1:]
        color_bc = fields[f"{item}_color"][:, 1:] + fields[f"{item}_color"][:, :1]  # no colour named: any will do
        cells += [torch.einsum("bgscz,bs,bc->bg", look, shape_bs, color_bc) for look in looks]
    cells.append((picture.cells_bgk * source.cells_bgk).sum(dim=2))
    for axis in (2, 3, 4):
        ours, theirs = (look.sum(dim=tuple({2, 3, 4} - {axis})) for look in looks)
        cells.append((ours * theirs).sum(dim=2))
    backgrounds = [(fields[name][:, 1:] * picture.background_bk).sum(dim=1) for name in NAMED_BACKGROUNDS]
    backgrounds.append((picture.background_bk * source.background_bk).sum(dim=1))
    return torch.stack(cells, dim=2), torch.stack(backgrounds, dim=1)


def _by_look(cells_bgk: Tensor) -> Tensor:
    """(b, g, shape, colour, size) probabilities of the things."""
    return cells_bgk[:, :, 2:].unflatten(2, (len(SHAPES), len(COLORS), len(SIZES)))


class Judge(nn.Module):
    """Cells are encoded, summed (that counts), told the sum, encoded again and summed into the verdict."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = nn.ModuleList(nn.Linear(CELL_CLASSES, width, bias=False) for _ in range(2))  # picture, source
        self.background = nn.ModuleList(nn.Linear(len(BACKGROUNDS), width, bias=False) for _ in range(2))
        self.meaning = nn.Linear(MEANING_CLASSES, width)
        self.cell_agreement = nn.Linear(2 * len(ITEMS) + 4, width)
        self.background_agreement = nn.Linear(len(NAMED_BACKGROUNDS) + 1, width)
        self.place_gd = nn.Parameter(torch.randn(GRID * GRID, width) * 0.3)
        hidden = 2 * width
        self.first = _two_layers(width, hidden)
        self.together = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, width))
        self.second = _two_layers(hidden + width, hidden)
        self.verdict = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 1 + len(PARTS))
        )
        self.fits = nn.Linear(hidden, 1)

    def forward(self, picture: Look, source: Look, meaning_bk: Tensor) -> Judgement:
        """Judges pictures against texts; a source of all zeros means that nothing is edited."""
        cell_bgf, background_bf = agreements(picture, source, meaning_bk)
        all_bd = self.meaning(meaning_bk) + self.background_agreement(background_bf)
        all_bd = all_bd + self.background[0](picture.background_bk) + self.background[1](source.background_bk)
        cells_bgd = self.cell[0](picture.cells_bgk) + self.cell[1](source.cells_bgk) + self.place_gd
        once_bgd = self.first(cells_bgd + self.cell_agreement(cell_bgf) + all_bd[:, None])
        told_b1d = (self.together(once_bgd.sum(dim=1)) + all_bd)[:, None]
        twice_bgd = self.second(torch.cat([once_bgd, told_b1d.expand(-1, GRID * GRID, -1)], dim=2))
        verdict_bp = self.verdict(twice_bgd.sum(dim=1))
        return Judgement(verdict_bp[:, 0], verdict_bp[:, 1:], self.fits(twice_bgd)[:, :, 0])


def _two_layers(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, out), nn.GELU(), nn.Linear(out, out), nn.GELU())
