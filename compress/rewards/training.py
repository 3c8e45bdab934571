"""Trains the small learned reward: is the picture right, and what stands in each cell.

Shape suffix b: batch.
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
from compress.rewards.base import Request
from compress.rewards.examples import ExamplePool, draw_example, encode_examples
from compress.rewards.learned import LearnedReward, LearnedRewardSpec
from compress.stages.base import StepResult, TrainingStage, fit
from compress.stages.context import Progress, StageContext
from students.system import DiffusionSystem, to_tensor

CHUNK = 512
HELD_OUT_SHARE = 8  # one example in so many is kept for validation
CELL_WEIGHT = 0.5


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig(TrainConfig):
    """How the learned reward is trained; `pool_examples` pictures a task are drawn and encoded once."""

    name: str = "reward model"
    batch_size: int = 128
    learning_rate: float = 1e-3
    pool_examples: int = 8192


class RewardModelStage(TrainingStage):
    """Binary cross-entropy of the verdict, plus classification of the cells and the background."""

    def __init__(
        self, config: RewardModelConfig, progress: Progress, system: DiffusionSystem, pool: ExamplePool
    ) -> None:
        super().__init__(config, progress)
        torch.manual_seed(config.seed)
        self.system, self.pool = system, pool
        self.held_out = len(pool) // HELD_OUT_SHARE
        self.trained = LearnedReward(LearnedRewardSpec(text_width=system.text_encoder.config.hidden_size))
        self.start_averaging()
        self._surroundings = [self.guest(system.text_encoder), self.guest(system.vae)]

    def step(self, update: int, generator: torch.Generator) -> StepResult:
        rows = torch.randint(self.held_out, len(self.pool), (self.config.batch_size,), generator=generator)
        verdict, cells, background = losses(cast(LearnedReward, self.trained), self.system, self.pool, rows)
        loss = verdict + CELL_WEIGHT * (cells + background)
        return StepResult(loss, {"loss_verdict": verdict.detach(), "loss_cells": cells.detach()})

    def validate_now(self, update: int) -> dict[str, float]:
        if update % (4 * self.config.log_every) and update != self.config.steps:
            return {}
        reward = cast(LearnedReward, self.averaged.eval())
        return {"accuracy": accuracy(reward, self.system, self.pool, range(self.held_out))}


def request_of(system: DiffusionSystem, pool: ExamplePool, rows: Tensor) -> tuple[Tensor, Request]:
    """(pictures, request) of rows of a pool, on the system's device."""
    source_b3hw = to_tensor(pool.source_bpp3[rows]) * pool.edits_b[rows, None, None, None]
    images_b3hw = to_tensor(pool.image_bpp3[rows]).to(system.device)
    return images_b3hw, Request(system.encode_ids(pool.ids_bt[rows]), source_b3hw.to(system.device))


def losses(reward: LearnedReward, system: DiffusionSystem, pool: ExamplePool, rows: Tensor) -> tuple[Tensor, ...]:
    """Mean cross-entropies of verdict, cells and background over rows of a pool."""
    images_b3hw, request = request_of(system, pool, rows)
    opinion = reward(images_b3hw, request)
    device = images_b3hw.device
    return (
        F.binary_cross_entropy_with_logits(opinion.logit_b, pool.right_b[rows].to(device)),
        F.cross_entropy(opinion.cells_bgk.flatten(0, 1), pool.cells_bg[rows].flatten().to(device)),
        F.cross_entropy(opinion.background_bk, pool.background_b[rows].to(device)),
    )


@torch.no_grad()
def accuracy(reward: LearnedReward, system: DiffusionSystem, pool: ExamplePool, rows: range) -> float:
    """Share of rows whose verdict is right."""
    right = 0
    for start in range(rows.start, rows.stop, 256):
        part = torch.arange(start, min(start + 256, rows.stop))
        images_b3hw, request = request_of(system, pool, part)
        verdict_b = reward.score(images_b3hw, request).cpu() > 0
        right += int((verdict_b == pool.right_b[part].bool()).sum())
    return right / max(1, len(rows))


def _key(system: DiffusionSystem, config: RewardModelConfig) -> str:
    """Names a pool and its reward by the networks it sees through, the code that draws it and the configuration."""
    digest = hashlib.sha256(repr(sorted(asdict(config).items())).encode())
    for module in (system.vae, system.text_encoder):
        for name, weight in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().float().numpy().tobytes())
    for name in ("examples.py", "learned.py", "training.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:20]


def open_examples(system: DiffusionSystem, config: RewardModelConfig, ctx: StageContext) -> ExamplePool:
    """Draws the pool, or continues where a killed attempt stopped: each chunk is a file of its own seed."""
    chunks = []
    count = 2 * config.pool_examples
    ctx.progress.start(count, "pictures", "drawing examples for the reward")
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        path = ctx.work / f"examples-{start:06d}.safetensors"
        if not path.exists():
            rng = np.random.default_rng([config.seed, 30, start])
            examples = [draw_example(rng, edit=bool(index % 2)) for index in range(size)]
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            pool = encode_examples(system, examples, rng)
            save_file({name: value.contiguous() for name, value in vars(pool).items()}, part)
            os.replace(part, path)
        chunks.append(load_file(path))
        ctx.progress.advance(size)
    return ExamplePool(**{name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]})


def train_reward(
    system: DiffusionSystem, config: RewardModelConfig, ctx: StageContext
) -> tuple[LearnedReward, dict[str, list[tuple[float, float]]]]:
    """The learned reward for a system's pictures and texts, and its learning curves; from the cache where it is there.

    Takes about 0.1 s a step at the default sizes on two cores. Resumes after a kill.
    """
    folder = ctx.cache / f"reward-{_key(system, config)}"
    if not folder.is_dir():
        inner = replace(ctx, work=ctx.work / "reward_model")
        stage = RewardModelStage(config, ctx.progress, system, open_examples(system, config, inner))
        fit(stage, inner, config.name)
        part = folder.with_suffix(f".{os.getpid()}.part")
        cast(LearnedReward, stage.averaged.eval()).save(part)
        curves = {f"reward_model_{name}": torch.tensor(rows) for name, rows in stage.curves.items()}
        save_file(curves, part / "curves.safetensors")
        os.replace(part, folder)
    stored = load_file(folder / "curves.safetensors")
    return LearnedReward.load(folder), {name: [(x, y) for x, y in rows.tolist()] for name, rows in stored.items()}
