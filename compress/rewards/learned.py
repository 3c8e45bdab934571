"""A small learned reward for generation and editing: the logit that a picture does what the text asks.

A convolutional reader turns the picture, and the source of an edit, into one feature a 16-px cell; a transformer then
reads cells and text together. The reader also names what stands in each cell, which is what makes it quick to train
and keeps it from being satisfied by texture.

Shape suffixes: b batch, g cells of the grid (16 px each), d width, t text tokens.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from compress.data.scenes.world import BACKGROUNDS, COLORS, GRID, SHAPES, SIZES
from compress.rewards.base import Request

CELL_CLASSES = 2 + len(SHAPES) * len(COLORS) * len(SIZES)  # empty, broken, or one thing
EMPTY, BROKEN = 0, 1


@dataclass(frozen=True)
class LearnedRewardSpec:
    """The network's sizes; `text_width` is that of the text encoder's tokens."""

    text_width: int
    width: int = 128
    layers: int = 3
    heads: int = 4


@dataclass(frozen=True)
class Opinion:
    """What the network thinks of a batch: logit of being right (b,), cell classes (b, g, k), background (b, k)."""

    logit_b: Tensor
    cells_bgk: Tensor
    background_bk: Tensor


class LearnedReward(nn.Module):
    """Implements `Reward`; scores are logits, so a threshold of 2 means an 88 % chance of being right."""

    differentiable = True

    def __init__(self, spec: LearnedRewardSpec) -> None:
        super().__init__()
        self.spec = spec
        width = spec.width
        self.reader = nn.Sequential(
            _down(3, 32), _same(32), _down(32, 64), _same(64), _down(64, width), _same(width), _down(width, width)
        )
        self.cell_head = nn.Linear(width, CELL_CLASSES)
        self.background_head = nn.Linear(width, len(BACKGROUNDS))
        self.text = nn.Linear(spec.text_width, width)
        self.roles_4d = nn.Parameter(torch.randn(4, width) * 0.02)  # picture, source, no source, text
        self.cells_gd = nn.Parameter(torch.randn(GRID * GRID, width) * 0.02)
        self.verdict_d = nn.Parameter(torch.randn(width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, spec.heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.matcher = nn.TransformerEncoder(layer, spec.layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.logit = nn.Linear(width, 1)

    def read(self, images_b3hw: Tensor) -> Tensor:
        """One feature a cell, (b, g, d)."""
        return self.reader(images_b3hw).flatten(2).transpose(1, 2)

    def forward(self, images_b3hw: Tensor, request: Request) -> Opinion:
        """Everything the network says about pictures in [-1, 1]."""
        picture_bgd = self.read(images_b3hw)
        source_bgd = self._source(picture_bgd, request)
        text_btd = self.text(request.condition.tokens_btd.to(picture_bgd.dtype)) + self.roles_4d[3]
        sequence = [
            self.verdict_d.expand(len(picture_bgd), 1, -1),
            picture_bgd + self.cells_gd + self.roles_4d[0],
            source_bgd + self.cells_gd,
            text_btd,
        ]
        matched_bd = self.matcher(torch.cat(sequence, dim=1))[:, 0]
        return Opinion(
            self.logit(matched_bd)[:, 0].float(),
            self.cell_head(picture_bgd).float(),
            self.background_head(picture_bgd.mean(dim=1)).float(),
        )

    def _source(self, picture_bgd: Tensor, request: Request) -> Tensor:
        nothing_bgd = self.roles_4d[2].expand_as(picture_bgd).to(picture_bgd.dtype)
        if request.source_b3hw is None:
            return nothing_bgd
        source_bgd = self.read(request.source_b3hw) + self.roles_4d[1]
        return torch.where(request.edits_b[:, None, None], source_bgd, nothing_bgd)

    def score(self, images_b3hw: Tensor, request: Request) -> Tensor:
        """The logit of being right, shape (b,)."""
        return self(images_b3hw, request).logit_b

    def save(self, folder: Path) -> None:
        """Writes config.json and model.safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(asdict(self.spec), indent=2) + "\n")
        save_file({name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()},
                  folder / "model.safetensors")  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> LearnedReward:
        """Reads what `save` wrote; raises FileNotFoundError where a file is missing."""
        reward = cls(LearnedRewardSpec(**json.loads((folder / "config.json").read_text())))
        reward.load_state_dict(load_file(folder / "model.safetensors"))
        return reward.eval()


def _down(channels: int, out: int) -> nn.Sequential:
    """Halves rows and columns."""
    return nn.Sequential(nn.Conv2d(channels, out, 4, stride=2, padding=1), nn.GroupNorm(8, out), nn.SiLU())


def _same(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(8, channels), nn.SiLU())
