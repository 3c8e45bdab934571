"""Step distillation: the guided many-step parent becomes a student of a few steps without guidance (DMD2).

First the student is fitted to recorded paths of the parent, which is cheap and puts it near; then its distribution is
matched to the parent's by the difference of two scores: the frozen guided parent's, and that of a copy which keeps
learning the student's own samples. Student and copy train on backward simulations, the states that inference visits.

Shape suffixes: b batch, k rungs, c latent channels, h and w latent rows and columns.
"""

from __future__ import annotations

import copy
import math
import os
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from compress.config.post import DistillConfig
from compress.diffusion.few_step import Walk, backward_simulation, segment_velocity, teacher_path
from compress.diffusion.guidance import Guidance, guided_velocity
from compress.diffusion.prediction import add_noise, x0_of_velocity
from compress.diffusion.sampler import sample
from compress.diffusion.schedule import draw_uniform
from compress.evaluation.scenes_bench import quick_scores
from compress.generate import guidance_of, levels
from compress.objectives.dmd import dmd_gradient, dmd_loss, fake_score_loss
from compress.objectives.flow_matching import velocity_loss
from compress.stages.base import TrainingStage, fit
from compress.stages.context import Progress, StageContext, StageResult
from compress.stages.prompts import Drawn, Prompts
from students.system import DiffusionSystem, SamplingDefaults
from students.unet import velocity_model
from teachers.base import Condition, VelocityModel

CHUNK = 256
Terms = dict[str, Tensor | float]


class DistillStage(TrainingStage):
    """Alternates `update_fake` and `update_student`; before that, `update_regression`."""

    def __init__(
        self,
        config: DistillConfig,
        progress: Progress,
        system: DiffusionSystem,
        prompts: Prompts,
        paths: dict[str, Tensor] | None,
    ) -> None:
        super().__init__(config, progress)
        self.config: DistillConfig = config
        self.system, self.prompts, self.paths = system, prompts, paths
        self.trained = system.unet.train()
        self.fake = copy.deepcopy(system.unet).train()
        self.start_averaging()
        self._parent = self.guest(copy.deepcopy(system.unet))
        self._surroundings = [self.guest(system.vae), self.guest(system.text_encoder)]
        self.sampling = parent_sampling(config, system.sampling)
        self.guidance: Guidance | None = None

    @property
    def student(self) -> VelocityModel:
        return velocity_model(self.trained)

    def configure_optimizers(self) -> Any:
        config = self.config
        return [
            self.optimizer_of(self.trained, config.learning_rate),
            self.optimizer_of(self.fake, config.fake_learning_rate),
        ]

    def learning_rate_at(self, update: int) -> float:
        """Warm-up and half a cosine for each of the two phases."""
        config = self.config
        regressing = update < config.regression_steps
        first, last = (0, config.regression_steps) if regressing else (config.regression_steps, config.steps)
        peak = config.regression_learning_rate if regressing else config.learning_rate
        done = update - first
        if done < config.warmup_steps:
            return peak * (done + 1) / config.warmup_steps
        share = (done - config.warmup_steps) / max(1, last - first - config.warmup_steps)
        floor = config.final_learning_rate_share
        return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))

    def update(self, generator: torch.Generator) -> Terms:
        config = self.config
        if self.updates < config.regression_steps:
            return self.update_regression(generator)
        if self.guidance is None:  # made here, where the text encoder is on its device
            self.guidance = guidance_of(self.sampling, self.system.encode_text([""]))
        condition = self.prompts.draw_condition(config.batch_size, generator)
        noise_bchw = self._noise((config.batch_size, *self.system.latent_shape), generator)
        walk = backward_simulation(
            self.student, noise_bchw, condition, config.rungs, config.walk == "stochastic", generator
        )
        terms = self.update_fake(walk, condition, generator)
        if self.updates >= config.regression_steps + config.fake_warmup_steps:
            terms |= self.update_student(walk, condition, generator)
        return {"loss": terms.get("loss_dmd", terms["loss_fake"]), **terms}

    # ---- the three updates ----------------------------------------------------------------------------------------
    def update_regression(self, generator: torch.Generator) -> Terms:
        """One straight step along a recorded path of the parent, from a random rung."""
        loss = self.regression_loss(generator)
        norm = self.apply_gradients(loss, self.optimizers()[0], self.trained, self.learning_rate_at(self.updates))
        return {"loss": loss.detach(), "loss_regression": loss.detach(), "gradient_norm": norm}

    def regression_loss(self, generator: torch.Generator) -> Tensor:
        """Mean squared velocity error on the paths; a scalar."""
        config, paths = self.config, self.paths
        assert paths is not None
        rows_b = torch.randint(len(paths["ids"]), (config.batch_size,), generator=generator)
        rung_b = torch.randint(len(config.rungs), (config.batch_size,), generator=generator)
        path_kbchw = paths["path"][rows_b].float().transpose(0, 1)
        x_bchw, target_bchw = segment_velocity(path_kbchw, config.rungs, rung_b, config.walk == "stochastic")
        drawn = Drawn(paths["ids"][rows_b].long(), paths["source"][rows_b].float())
        condition = self.prompts.condition(drawn)
        sigma_b = torch.tensor(config.rungs)[rung_b].to(self.device)
        predicted = self.student.velocity(x_bchw.to(self.device), sigma_b, condition).float()
        return velocity_loss(predicted, target_bchw.to(self.device)).mean()

    def update_fake(self, walk: Walk, condition: Condition, generator: torch.Generator) -> Terms:
        """`fake_ratio` updates of plain flow matching on what the student made, each at fresh rungs and levels."""
        config = self.config
        loss = norm = torch.zeros(())
        for _ in range(config.fake_ratio):
            sample_bchw = self.made(walk, generator)
            noise_bchw = self._noise(sample_bchw.shape, generator)
            sigma_b = draw_uniform(len(sample_bchw), generator).to(self.device)
            x_bchw = add_noise(sample_bchw, noise_bchw, sigma_b)
            velocity = velocity_model(self.fake).velocity(x_bchw, sigma_b, condition).float()
            loss = fake_score_loss(velocity, sample_bchw, noise_bchw).mean()
            norm = self.apply_gradients(loss, self.optimizers()[1], self.fake, config.fake_learning_rate)
        return {"loss_fake": loss.detach(), "gradient_norm_fake": norm}

    def update_student(self, walk: Walk, condition: Condition, generator: torch.Generator) -> Terms:
        """The distribution-matching gradient on what the student makes; rungs before the drawn one carry none."""
        config = self.config
        sample_bchw = self.made(walk, generator, condition)
        gradient_bchw = self.score_difference(sample_bchw.detach(), condition, generator)
        loss_dmd = dmd_loss(sample_bchw, gradient_bchw).mean()
        loss = loss_dmd
        if config.regression_weight > 0:
            loss = loss + config.regression_weight * self.regression_loss(generator)
        norm = self.apply_gradients(loss, self.optimizers()[0], self.trained, self.learning_rate_at(self.updates))
        return {
            "loss_dmd": loss_dmd.detach(),
            "score_difference": gradient_bchw.abs().mean(),
            "sample_std": sample_bchw.detach().std(),
            "gradient_norm": norm,
        }

    @torch.no_grad()
    def score_difference(self, sample_bchw: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
        """DMD's normalised gradient at freshly noised samples: guided parent against unguided fake score."""
        config = self.config
        sigma_b = draw_uniform(len(sample_bchw), generator, config.noise_low, config.noise_high).to(self.device)
        x_bchw = add_noise(sample_bchw, self._noise(sample_bchw.shape, generator), sigma_b)
        parent = velocity_model(self._parent())
        real = guided_velocity(parent, x_bchw, sigma_b, condition, self.guidance).float()
        fake = velocity_model(self.fake).velocity(x_bchw, sigma_b, condition).float()
        return dmd_gradient(sample_bchw, x0_of_velocity(x_bchw, real, sigma_b), x0_of_velocity(x_bchw, fake, sigma_b))

    def made(self, walk: Walk, generator: torch.Generator, condition: Condition | None = None) -> Tensor:
        """The student's samples, those that a walk recorded or, given a condition, made again with gradient.

        A stochastic walk is a chain of samples, each rung's x0 is one (as in DMD2): every row has a rung of its own. A
        walk by Euler makes one sample, its end: the gradient flows from a random rung, the same for all rows, to there.
        """
        rungs, rows = self.config.rungs, walk.end_bchw.shape[0]
        if self.config.walk == "ode":
            first = int(torch.randint(len(rungs), (1,), generator=generator))
            if condition is None:
                return walk.end_bchw
            return sample(self.student, walk.states_kbchw[first], condition, [*rungs[first:], 0.0])
        rung_b = torch.randint(len(rungs), (rows,), generator=generator)
        x_bchw, clean_bchw = walk.at(rung_b.to(self.device))
        if condition is None:
            return clean_bchw
        sigma_b = torch.tensor(rungs)[rung_b].to(self.device)
        return x0_of_velocity(x_bchw, self.student.velocity(x_bchw, sigma_b, condition).float(), sigma_b)

    def _noise(self, shape: Any, generator: torch.Generator) -> Tensor:
        return torch.randn(tuple(shape), generator=generator).to(self.device)

    def validate_now(self, update: int) -> dict[str, float]:
        config = self.config
        if not config.validate_images or (update % config.validate_every and update != config.steps):
            return {}
        averaged = self.system.with_unet(self.averaged.eval(), few_step_sampling(config))
        return quick_scores(averaged, config.validate_images, seed=5)


def parent_sampling(config: DistillConfig, parent: SamplingDefaults) -> SamplingDefaults:
    """How the parent is sampled as a teacher: its own defaults, with the configured guidance scales."""
    names = ("guidance_text", "guidance_edit_text", "guidance_image")
    given = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    return replace(parent, **given)


def few_step_sampling(config: DistillConfig) -> SamplingDefaults:
    """How the student is sampled: its rungs, one plain forward each."""
    return SamplingDefaults(
        steps=len(config.rungs),
        guidance_text=1.0,
        guidance_edit_text=1.0,
        guidance_image=1.0,
        rungs=config.rungs,
        stochastic=config.walk == "stochastic",
    )


def record_paths(
    config: DistillConfig, ctx: StageContext, system: DiffusionSystem, prompts: Prompts
) -> dict[str, Tensor]:
    """`ids`, `source` and `path` (paths, k + 1, c, h, w) of the guided parent; chunks survive a kill.

    Every chunk is drawn from its own seed and kept as a file of its own in the stage's work folder.
    """
    ctx.work.mkdir(parents=True, exist_ok=True)
    sampling = replace(parent_sampling(config, system.sampling), steps=config.path_steps, rungs=None)
    guidance = guidance_of(sampling, system.encode_text([""]))
    ctx.progress.start(config.paths, "paths", "recording the parent's paths")
    chunks = []
    for start in range(0, config.paths, CHUNK):
        count = min(CHUNK, config.paths - start)
        file = ctx.work / f"paths-{start:06d}.safetensors"
        if not file.exists():
            generator = torch.Generator().manual_seed(config.seed * 1_000_003 + start + 17)
            drawn = prompts.draw(count, generator)
            noise_bchw = torch.randn((count, *system.latent_shape), generator=generator).to(ctx.device)
            with torch.autocast(ctx.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                path_kbchw = teacher_path(
                    system.denoiser, noise_bchw, prompts.condition(drawn), levels(sampling), config.rungs, guidance
                )
            path_bkchw = path_kbchw.transpose(0, 1).half()
            tensors = {"ids": drawn.ids_bt, "source": drawn.source_bchw.half(), "path": path_bkchw}
            part = file.with_suffix(".part")
            save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, part)
            os.replace(part, file)
        chunks.append(load_file(file))
        ctx.progress.advance(count)
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


def run(config: DistillConfig, ctx: StageContext) -> StageResult:
    """Distils the parent; the artefact's sampling.json holds the rungs, no guidance, and how to walk."""
    assert ctx.parent is not None
    system = DiffusionSystem.load(ctx.parent, ctx.device)
    prompts = Prompts.open(system, config.edit_share, config.pool_samples, ctx.cache, ctx.progress)
    regressing = config.regression_steps > 0 or config.regression_weight > 0
    paths = record_paths(config, ctx, system, prompts) if regressing else None
    stage = DistillStage(config, ctx.progress, system, prompts, paths)
    fit(stage, ctx, config.name)
    unet: Any = stage.averaged.eval()
    system.with_unet(unet, few_step_sampling(config)).save(ctx.out)
    metrics = {
        "parameters_m": sum(p.numel() for p in unet.parameters()) / 1e6,
        **{f"quick_{name}": stage.curves[name][-1][1] for name in ("t2i", "edit") if name in stage.curves},
    }
    return StageResult(metrics=metrics, curves=stage.curves, spec=dict(unet.config))
