"""Trains the small learned reward: its readers on pictures and texts, its judge on specs, in one step.

Shape suffixes: b batch, g cells, k classes.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from compress.config.train import TrainConfig
from compress.data.scenes.meaning import FIELDS
from compress.data.scenes.world import BACKGROUNDS
from compress.rewards.base import Request
from compress.rewards.examples import Pictures, Specs, draw_example, encode_pictures, encode_specs
from compress.rewards.judge import BROKEN, CELL_CLASSES, Look
from compress.rewards.learned import LearnedReward, LearnedRewardSpec
from compress.stages.base import StepResult, TrainingStage, fit
from compress.stages.context import Progress, StageContext
from students.system import DiffusionSystem, to_tensor

CHUNK = 512
HELD_OUT_SHARE = 8  # one picture in so many is kept for validation
READER_BATCH_SHARE = 0.5  # pictures a step, relative to specs
DOUBT = 0.35  # largest probability that a softened cell gives to another class than its own
LOSS_WEIGHTS = {"parts": 2.0}
LABEL_SMOOTHING = 0.05  # keeps the reader from saturating, where the reward would have no gradient


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig(TrainConfig):
    """How the learned reward is trained: `pictures` and `specs` of each task are drawn once."""

    name: str = "reward model"
    batch_size: int = 128
    learning_rate: float = 1e-3
    ema_decay: float = 0.99
    pictures: int = 1024
    specs: int = 32768


class RewardModelStage(TrainingStage):
    """Classifies cells, backgrounds and meanings; binary cross-entropy of the verdict, its parts and the cells."""

    def __init__(
        self,
        config: RewardModelConfig,
        progress: Progress,
        system: DiffusionSystem,
        pictures: Pictures,
        specs: Specs,
    ) -> None:
        super().__init__(config, progress)
        torch.manual_seed(config.seed)
        self.system, self.pictures, self.specs = system, pictures, specs
        self.held_out = len(pictures) // HELD_OUT_SHARE
        self.trained = LearnedReward(LearnedRewardSpec(text_width=system.text_encoder.config.hidden_size))
        self.start_averaging()
        self._surroundings = [self.guest(system.text_encoder), self.guest(system.vae)]

    def step(self, update: int, generator: torch.Generator) -> StepResult:
        count = max(1, round(self.config.batch_size * READER_BATCH_SHARE))
        rows = torch.randint(self.held_out, len(self.pictures), (count,), generator=generator)
        losses = {"reader": self.reader_loss(rows)}
        rows = torch.randint(len(self.specs), (self.config.batch_size,), generator=generator)
        losses |= {"text": self.text_loss(rows), **self.judge_losses(rows, generator)}
        loss = torch.stack([LOSS_WEIGHTS.get(name, 1.0) * value for name, value in losses.items()]).sum()
        return StepResult(loss, {f"loss_{name}": value.detach() for name, value in losses.items()})

    def reader_loss(self, rows: Tensor) -> Tensor:
        """Cross-entropy of cells and background over rows of the pictures; a scalar."""
        reward, pictures = cast(LearnedReward, self.trained), self.pictures
        cells_bgk, background_bk = reward.read(to_tensor(pictures.image_bpp3[rows]).to(self.device))
        cells_n, background_b = (
            label[rows].flatten().to(self.device) for label in (pictures.cells_bg, pictures.background_b)
        )
        return F.cross_entropy(cells_bgk.flatten(0, 1), cells_n, label_smoothing=LABEL_SMOOTHING) + F.cross_entropy(
            background_bk, background_b, label_smoothing=LABEL_SMOOTHING
        )

    def text_loss(self, rows: Tensor) -> Tensor:
        """Cross-entropy of every field of the meaning over rows of the specs, averaged over fields; a scalar."""
        fields = cast(LearnedReward, self.trained).understand(
            self.system.encode_ids(self.specs.ids_bt[rows]).tokens_btd
        )
        meaning_bf = self.specs.meaning_bf[rows].to(self.device)
        return torch.stack([F.cross_entropy(field, meaning_bf[:, index]) for index, field in enumerate(fields)]).mean()

    def judge_losses(self, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Cross-entropies of verdict, parts and cells over rows of the specs, seen with some doubt; scalars."""
        specs = self.specs
        picture = soften(specs.cells_bg[rows], specs.background_b[rows], generator)
        source = soften(specs.source_cells_bg[rows], specs.source_background_b[rows], generator)
        picture, source = picture.to(self.device), source.to(self.device)
        meaning_bf = specs.meaning_bf[rows]
        fields = [_one_hot(meaning_bf[:, index], len(options)) for index, options in enumerate(FIELDS.values())]
        judged = cast(LearnedReward, self.trained).judge(picture, source, torch.cat(fields, dim=1).to(self.device))
        parts_bp = specs.parts_bp[rows].to(self.device)
        applies_bp = ~parts_bp.isnan()
        pairs = {
            "verdict": (judged.right_b, specs.right_b[rows]),
            "parts": (judged.parts_bp[applies_bp], parts_bp[applies_bp]),
            "fits": (judged.fits_bg, specs.fits_bg[rows]),
        }
        loss = F.binary_cross_entropy_with_logits
        return {name: loss(ours.float(), truth.to(self.device)) for name, (ours, truth) in pairs.items()}

    def validate_now(self, update: int) -> dict[str, float]:
        if update % (4 * self.config.log_every) and update != self.config.steps:
            return {}
        reward = cast(LearnedReward, self.averaged.eval())
        return accuracy(reward, self.system, self.pictures, range(max(1, self.held_out)))


def soften(cells_bg: Tensor, background_b: Tensor, generator: torch.Generator) -> Look:
    """Classes as a reader might see them: with some doubt, and broken cells half the time as two things at once.

    Rows of class -1 (no source) are all zeros.
    """
    certain_bgk = _one_hot(cells_bg, CELL_CLASSES)
    other_bgk = _one_hot(torch.randint(CELL_CLASSES, cells_bg.shape, generator=generator), CELL_CLASSES)
    another_bgk = _one_hot(torch.randint(CELL_CLASSES, cells_bg.shape, generator=generator), CELL_CLASSES)
    doubt_bg1 = DOUBT * torch.rand((*cells_bg.shape, 1), generator=generator) ** 2
    half_bg1 = 0.4 + 0.2 * torch.rand((*cells_bg.shape, 1), generator=generator)
    torn_bg1 = (cells_bg == BROKEN)[..., None] & (torch.rand((*cells_bg.shape, 1), generator=generator) < 0.5)
    seen_bgk = torch.where(
        torn_bg1, torch.lerp(other_bgk, another_bgk, half_bg1), torch.lerp(certain_bgk, other_bgk, doubt_bg1)
    )
    certain_bk = _one_hot(background_b, len(BACKGROUNDS))
    doubt_b1 = DOUBT * torch.rand((len(background_b), 1), generator=generator) ** 2
    seen_bk = torch.lerp(certain_bk, torch.full_like(certain_bk, 1 / len(BACKGROUNDS)), doubt_b1)
    given_b1 = (background_b >= 0).float()[:, None]
    return Look(seen_bgk * given_b1[:, :, None], seen_bk * given_b1)


def _one_hot(classes: Tensor, count: int) -> Tensor:
    """One-hot floats; -1 becomes the first class (its rows are blanked later)."""
    return F.one_hot(classes.clamp(min=0), count).float()


@torch.no_grad()
def accuracy(reward: LearnedReward, system: DiffusionSystem, pictures: Pictures, rows: range) -> dict[str, float]:
    """Share of pictures whose verdict is right, by task."""
    right: list[Tensor] = []
    for start in range(rows.start, rows.stop, 256):
        part = torch.arange(start, min(start + 256, rows.stop))
        edits_b = pictures.edits_b[part]
        source_b3hw = to_tensor(pictures.source_bpp3[part]) * edits_b[:, None, None, None]
        request = Request(system.encode_ids(pictures.ids_bt[part]), source_b3hw.to(system.device))
        verdict_b = reward.score(to_tensor(pictures.image_bpp3[part]).to(system.device), request).cpu() > 0
        right.append(verdict_b == pictures.right_b[part].bool())
    right_b, edits_b = torch.cat(right).float(), pictures.edits_b[rows.start : rows.stop]
    scores = {"accuracy_t2i": right_b[~edits_b], "accuracy_edit": right_b[edits_b]}
    return {name: float(values.mean()) for name, values in scores.items() if len(values)}


def _key(system: DiffusionSystem, config: RewardModelConfig) -> str:
    """Names a reward by the networks it sees through, the code that draws its examples and its configuration."""
    digest = hashlib.sha256(repr(sorted(asdict(config).items())).encode())
    for module in (system.vae, system.text_encoder):
        for name, weight in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().float().numpy().tobytes())
    for name in ("examples.py", "judge.py", "learned.py", "training.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:20]


def open_pictures(system: DiffusionSystem, config: RewardModelConfig, ctx: StageContext) -> Pictures:
    """Draws the pictures, or continues where a killed attempt stopped: each chunk is a file of its own seed."""
    chunks = []
    count = 2 * config.pictures
    ctx.progress.start(count, "pictures", "drawing examples for the reward")
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        path = ctx.work / f"examples-{start:06d}.safetensors"
        if not path.exists():
            rng = np.random.default_rng([config.seed, 30, start])
            pictures = encode_pictures(system, [draw_example(rng, edit=bool(index % 2)) for index in range(size)], rng)
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            save_file({name: value.contiguous() for name, value in vars(pictures).items()}, part)
            os.replace(part, path)
        chunks.append(load_file(path))
        ctx.progress.advance(size)
    return Pictures(**{name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]})


def draw_specs(system: DiffusionSystem, config: RewardModelConfig) -> Specs:
    """The specs of both tasks in turn; about 3,000 a second."""
    rng = np.random.default_rng([config.seed, 31])
    return encode_specs(system, [draw_example(rng, edit=bool(index % 2)) for index in range(2 * config.specs)])


def train_reward(
    system: DiffusionSystem, config: RewardModelConfig, ctx: StageContext
) -> tuple[LearnedReward, dict[str, list[tuple[float, float]]]]:
    """The learned reward for a system's pictures and texts, and its learning curves; from the cache where it is there.

    Resumes after a kill.
    """
    folder = ctx.cache / f"reward-{_key(system, config)}"
    if not folder.is_dir():
        inner = replace(ctx, work=ctx.work / "reward_model")
        pictures, specs = open_pictures(system, config, inner), draw_specs(system, config)
        stage = RewardModelStage(config, ctx.progress, system, pictures, specs)
        fit(stage, inner, config.name)
        part = folder.with_suffix(f".{os.getpid()}.part")
        cast(LearnedReward, stage.averaged.eval()).save(part)
        curves = {f"reward_model_{name}": torch.tensor(rows) for name, rows in stage.curves.items()}
        save_file(curves, part / "curves.safetensors")
        os.replace(part, folder)
    stored = load_file(folder / "curves.safetensors")
    return LearnedReward.load(folder), {name: [(x, y) for x, y in rows.tolist()] for name, rows in stored.items()}
