"""Reward fine-tuning by the reward's gradient (ReFL), anchored to the parent and judged by the exact verifier.

Shape suffixes: b batch, c latent channels, h and w rows and columns, 3 colours of a picture.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from compress.config.post import RewardConfig
from compress.data.scenes.captions import Prompt
from compress.data.scenes.edits import Instruction
from compress.data.scenes.world import render
from compress.diffusion.guidance import Guidance, guided_velocity
from compress.diffusion.prediction import add_noise
from compress.diffusion.sampler import step_to
from compress.diffusion.schedule import draw_uniform, sigmas
from compress.evaluation.scenes_bench import edit_samples, t2i_samples
from compress.generate import generate, guidance_of
from compress.objectives.distillation import output_loss
from compress.objectives.reward_gradient import Hinge, equalise, refl_loss
from compress.rewards.base import Request
from compress.rewards.learned import LearnedReward
from compress.rewards.training import RewardModelConfig, train_reward
from compress.rewards.verifier import VerifierReward
from compress.stages.base import CHECKPOINT, StepResult, TrainingStage, fit
from compress.stages.context import Progress, StageContext, StageResult
from compress.stages.prompts import Prompts
from students.system import DiffusionSystem, to_tensor
from students.unet import velocity_model
from teachers.base import Condition

JUDGE_SEED = 6
ANCHOR_NULL_SHARE = 0.15  # of the anchor's rows see no text, so that guidance keeps its other branch


class RewardStage(TrainingStage):
    """Pictures are sampled as at inference up to a random level, and finished from there in one step with gradient."""

    def __init__(
        self, config: RewardConfig, progress: Progress, system: DiffusionSystem, prompts: Prompts, reward: LearnedReward
    ) -> None:
        super().__init__(config, progress)
        self.config: RewardConfig = config
        self.system, self.prompts = system, prompts
        self.trained = system.unet.train()
        self.start_averaging()
        self._parent = self.guest(copy.deepcopy(system.unet))
        self._reward = self.guest(reward)
        self._surroundings = [self.guest(system.vae), self.guest(system.text_encoder)]

    @property
    def reward(self) -> LearnedReward:
        return cast(LearnedReward, self._reward())

    def step(self, update: int, generator: torch.Generator) -> StepResult:
        config = self.config
        drawn = self.prompts.draw(config.batch_size, generator)
        condition = self.prompts.condition(drawn)
        noise_bchw = torch.randn((config.batch_size, *self.system.latent_shape), generator=generator).to(self.device)
        z_bchw = self.roll_out(noise_bchw, condition, generator)
        reward_b = self.reward.score(self.system.decode(z_bchw).float(), self.request(condition))
        loss_reward = refl_loss(reward_b, config.threshold, cast(Hinge, config.hinge)).mean()
        loss_anchor = self.anchor(z_bchw.detach(), condition, generator).mean()
        edits_b = condition.edits_b
        terms: dict[str, Tensor | float] = {"loss_reward": loss_reward.detach(), "loss_anchor": loss_anchor.detach()}
        for name, rows_b in (("reward_edit", edits_b), ("reward_t2i", ~edits_b)):
            if bool(rows_b.any()):
                terms[name] = reward_b[rows_b].mean().detach()
        return StepResult(loss_reward + config.anchor_weight * loss_anchor, terms)

    def roll_out(self, noise_bchw: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
        """Latents from noise: without gradient down to a random level of the window, then x0 with it.

        In one step: ImageReward (arXiv 2304.05977) algorithm 1; its window is given in steps, ours in noise levels. By
        the sampler's own steps: DRaFT (arXiv 2309.17400), its K the number of steps that are left.
        """
        config = self.config
        guidance: Guidance | None = None
        if config.guided:
            guidance = guidance_of(self.system.sampling, self.system.encode_text([""]))
        levels = sigmas(config.sampler_steps, self.system.sampling.shift)
        stops = stops_of(levels, config.window)
        stop = stops[int(torch.randint(len(stops), (1,), generator=generator))]
        student = velocity_model(self.trained)
        x_bchw = noise_bchw
        rest = [0.0] if config.finish == "one_step" else levels[stop + 1 :]
        for index, (sigma, sigma_next) in enumerate(pairwise([*levels[: stop + 1], *rest])):
            with torch.set_grad_enabled(index >= stop):
                sigma_b = x_bchw.new_full((len(x_bchw),), sigma)
                velocity = guided_velocity(student, x_bchw, sigma_b, condition, guidance).float()
                x_bchw = step_to(x_bchw, velocity, sigma, sigma_next)
                if config.equal_gradients:
                    x_bchw = equalise(x_bchw)
        return x_bchw

    def request(self, condition: Condition) -> Request:
        """What the pictures are scored against; sources are decoded, zeros where nothing is edited."""
        edits_b = condition.edits_b
        if condition.source_bchw is None or not bool(edits_b.any()):
            return Request(condition)
        with torch.no_grad():
            decoded_b3hw = self.system.decode(condition.source_bchw).float().clamp(-1, 1)
        return Request(condition, decoded_b3hw * edits_b[:, None, None, None])

    def anchor(self, z_bchw: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
        """Squared distance of velocities to the parent's, at noised samples of all levels; shape (b,)."""
        sigma_b = draw_uniform(len(z_bchw), generator).to(self.device)
        x_bchw = add_noise(z_bchw, torch.randn(z_bchw.shape, generator=generator).to(self.device), sigma_b)
        blank_b = (torch.rand(len(z_bchw), generator=generator) < ANCHOR_NULL_SHARE).to(self.device)
        untexted = condition.with_text(self.system.encode_text([""]))
        tokens_btd = torch.where(blank_b[:, None, None], untexted.tokens_btd, condition.tokens_btd)
        told = replace(condition, tokens_btd=tokens_btd)
        with torch.no_grad():
            parent = velocity_model(self._parent()).velocity(x_bchw, sigma_b, told)
        return output_loss(velocity_model(self.trained).velocity(x_bchw, sigma_b, told), parent)

    def validate_now(self, update: int) -> dict[str, float]:
        config = self.config
        if update % config.judge_every and update != config.steps:
            return {}
        return self.judge(self.averaged.eval())

    @torch.no_grad()
    def judge(self, unet: nn.Module) -> dict[str, float]:
        """The learned reward and the exact verifier's verdict, side by side, on the same held-out requests.

        `judged_reward_*` are mean logits, `t2i`, `edit` and `overall` the shares that the verifier accepts.
        """
        system, scores = self.system.with_unet(unet), {}
        for task in ("t2i", "edit") if self.config.edit_share > 0 else ("t2i",):
            meanings: list[Prompt | Instruction]
            sources_b3hw = None
            if task == "t2i":
                meanings = [sample.prompt for sample in t2i_samples(self.config.judge_images, JUDGE_SEED)]
            else:
                samples = edit_samples(self.config.judge_images, JUDGE_SEED)
                meanings = [sample.instruction for sample in samples]
                sources_b3hw = to_tensor(render([sample.source for sample in samples])).to(self.device)
            texts = [meaning.tagged for meaning in meanings]
            pictures_b3hw = generate(system, texts, sources_b3hw, seed=JUDGE_SEED).to(self.device)
            request = Request(system.encode_text(texts), sources_b3hw, meanings)
            scores[task] = float(VerifierReward().score(pictures_b3hw, request).mean())
            scores[f"judged_reward_{task}"] = float(self.reward.score(pictures_b3hw, request).mean())
        shares = [scores[task] for task in ("t2i", "edit") if task in scores]
        return {**scores, "overall": sum(shares) / len(shares)}


def stops_of(levels: Sequence[float], window: tuple[float, float]) -> list[int]:
    """Numbers of the levels within the window; the nearest one to its middle where none is."""
    low, high = window
    inside = [index for index, level in enumerate(levels[:-1]) if low <= level <= high]
    nearest = min(range(len(levels) - 1), key=lambda index: abs(levels[index] - (low + high) / 2))
    return inside or [nearest]


def run(config: RewardConfig, ctx: StageContext) -> StageResult:
    """Trains (or finds) the learned reward, fine-tunes the parent on it, and writes the artefact."""
    assert ctx.parent is not None
    system = DiffusionSystem.load(ctx.parent, ctx.device)
    model_config = RewardModelConfig(
        steps=config.model_steps,
        batch_size=config.model_batch_size,
        learning_rate=config.model_learning_rate,
        pictures=config.model_pictures,
        specs=config.model_specs,
        precision=config.precision,
        seed=config.seed,
    )
    reward, curves = train_reward(system, model_config, ctx)
    prompts = Prompts.open(system, config.edit_share, config.pool_samples, ctx.cache, ctx.progress)
    stage = RewardStage(config, ctx.progress, system, prompts, reward.to(ctx.device))
    if not (ctx.work / CHECKPOINT).exists():
        ctx.progress.message("judging the parent")
        with torch.autocast(ctx.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            stage.curves = {name: [(0.0, value)] for name, value in stage.judge(stage.averaged).items()}
    fit(stage, ctx, config.name)
    unet: Any = stage.averaged.eval()
    system.with_unet(unet).save(ctx.out)
    judged = [name for name in stage.curves if name in ("t2i", "edit", "overall") or name.startswith("judged_")]
    metrics = {
        "parameters_m": sum(p.numel() for p in unet.parameters()) / 1e6,
        **{name: rows[-1][1] for name, rows in curves.items() if "accuracy" in name},
        **{f"quick_{name}_before": stage.curves[name][0][1] for name in judged},
        **{f"quick_{name}": stage.curves[name][-1][1] for name in judged},
    }
    return StageResult(metrics=metrics, curves={**curves, **stage.curves}, spec=dict(unet.config))
