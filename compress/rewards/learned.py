"""A small learned reward for generation and editing: the logit that a picture does what the text asks.

Three parts, joined by what people can read: one says what stands in each 16-px cell of the picture (and of the source
of an edit), one says what the text means, and a judge learns whether the one does what the other asks. The bottleneck
makes the reward quick to train (the judge learns from specs, without pictures) and hard to satisfy by texture.

Shape suffixes: b batch, g cells of the grid (16 px each), k classes, d width, t text tokens, f fields of meaning.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from compress.data.scenes.meaning import FIELDS
from compress.data.scenes.world import BACKGROUNDS
from compress.objectives.error import widened
from compress.rewards.base import Request
from compress.rewards.judge import CELL_CLASSES, Judge, Look


@dataclass(frozen=True)
class LearnedRewardSpec:
    """The network's sizes; `text_width` is that of the text encoder's tokens."""

    text_width: int
    width: int = 128


class LearnedReward(nn.Module):
    """Implements `Reward`; scores are logits, so a threshold of 2 means an 88 % chance of being right."""

    differentiable = True

    def __init__(self, spec: LearnedRewardSpec) -> None:
        super().__init__()
        self.spec = spec
        width = spec.width
        self.reader = nn.Sequential(
            _conv(3, 48, 4, 4), _conv(48, 48, 3, 1), _conv(48, 96, 4, 2), _conv(96, 96, 3, 1), _conv(96, width, 4, 2)
        )
        self.cell_head = nn.Linear(width, CELL_CLASSES)
        self.background_head = nn.Linear(width, len(BACKGROUNDS))
        self.queries_fd = nn.Parameter(torch.randn(len(FIELDS), spec.text_width) * spec.text_width**-0.5)
        self.field_heads = nn.ModuleList(nn.Linear(spec.text_width, len(options)) for options in FIELDS.values())
        self.judge = Judge(width)

    def read(self, images_b3hw: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of each cell's classes (b, g, k) and of the backgrounds (b, k), from pictures in [-1, 1]."""
        features_bgd = self.reader(images_b3hw).flatten(2).transpose(1, 2)
        return widened(self.cell_head(features_bgd)), widened(self.background_head(features_bgd.mean(dim=1)))

    def look(self, images_b3hw: Tensor) -> Look:
        """What the reader sees, as probabilities."""
        cells_bgk, background_bk = self.read(images_b3hw)
        return Look(cells_bgk.softmax(dim=2), background_bk.softmax(dim=1))

    def understand(self, tokens_btd: Tensor) -> list[Tensor]:
        """Logits of every field of the text's meaning, (b, options) each, in the order of `FIELDS`."""
        attention = torch.softmax(torch.einsum("fd,btd->bft", self.queries_fd, tokens_btd), dim=2)
        read_bfd = torch.einsum("bft,btd->bfd", attention, tokens_btd)
        return [widened(head(read_bfd[:, index])) for index, head in enumerate(self.field_heads)]

    def score(self, images_b3hw: Tensor, request: Request) -> Tensor:
        """The logit of being right, shape (b,); pictures in [-1, 1]."""
        picture = self.look(images_b3hw)
        source = Look(torch.zeros_like(picture.cells_bgk), torch.zeros_like(picture.background_bk))
        if request.source_b3hw is not None:
            edits_b1 = request.edits_b[:, None].to(picture.cells_bgk.dtype)
            seen = self.look(request.source_b3hw)
            source = Look(seen.cells_bgk * edits_b1[:, :, None], seen.background_bk * edits_b1)
        fields = self.understand(request.condition.tokens_btd)
        meaning_bk = torch.cat([field.softmax(dim=1) for field in fields], dim=1)
        return widened(self.judge(picture, source, meaning_bk).right_b)

    def save(self, folder: Path) -> None:
        """Writes config.json and model.safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(asdict(self.spec), indent=2) + "\n")
        weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(weights, folder / "model.safetensors")

    @classmethod
    def load(cls, folder: Path) -> LearnedReward:
        """Reads what `save` wrote; raises FileNotFoundError where a file is missing."""
        reward = cls(LearnedRewardSpec(**json.loads((folder / "config.json").read_text())))
        reward.load_state_dict(load_file(folder / "model.safetensors"))
        return reward.eval()


def _conv(channels: int, out: int, kernel: int, stride: int) -> nn.Sequential:
    padding = (kernel - stride + 1) // 2
    return nn.Sequential(nn.Conv2d(channels, out, kernel, stride, padding), nn.GroupNorm(8, out), nn.SiLU())
