"""Flow-matching training of any denoiser: the scenes teacher and the student's T2I, edit, joint and SFT stages.

The stages differ in their task mix and data only. Shape suffixes: b batch, t text tokens, c latent channels, h and w
latent rows and columns of one panel.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from compress.config.flow import FlowConfig, TeacherConfig
from compress.data.scenes.dataset import Pool, latent_batches, open_pool
from compress.diffusion.prediction import add_noise
from compress.diffusion.schedule import draw_logit_normal
from compress.evaluation.scenes_bench import quick_scores
from compress.objectives.distillation import output_loss
from compress.objectives.flow_matching import foreground_weight, velocity_loss, velocity_target
from compress.pruning.calibration import noised, predictions, velocity_mse
from compress.stages.base import StepResult, TrainingStage, fit
from compress.stages.context import Progress, StageContext, StageResult
from students.system import DiffusionSystem, SamplingDefaults
from students.unet import velocity_model
from teachers.base import Condition

HELD_OUT_SAMPLES, HELD_OUT_SEED, HELD_OUT_BATCH = 64, 103, 16  # as the prune stage of seed 0 draws them


@dataclass(frozen=True)
class Drawn:
    """One batch: clean latents, what the denoiser is told, and the weight of each latent pixel; edits come first."""

    x0_bchw: Tensor
    condition: Condition
    weight_b1hw: Tensor
    edits: int


class BatchMaker:
    """Draws batches of a task mix from the encoded pools, with condition dropout; on the system's device."""

    def __init__(self, system: DiffusionSystem, pools: dict[str, Pool], config: FlowConfig | TeacherConfig) -> None:
        self.system, self.pools, self.config = system, pools, config
        self.null_ids_t = system.tokenize([""])[0]

    def draw(self, generator: torch.Generator) -> Drawn:
        """The batch of one update; randomness from `generator` alone."""
        config = self.config
        share = config.edit_share if isinstance(config, FlowConfig) else 0.0
        edits = round(share * config.batch_size)
        parts = [self._edit_rows(edits, generator)] if edits else []
        if edits < config.batch_size:
            parts.append(self._t2i_rows(config.batch_size - edits, generator))
        ids_bt, target_bchw, source_bchw, mask_bhw = (torch.cat(values) for values in zip(*parts, strict=True))
        drop_source = config.drop_source if isinstance(config, FlowConfig) else 0.0
        chance_b = torch.rand(len(ids_bt), generator=generator)
        ids_bt[chance_b < config.drop_text + drop_source] = self.null_ids_t
        source_bchw[chance_b < drop_source] = 0
        condition = self.system.encode_ids(ids_bt)
        if isinstance(config, FlowConfig):
            condition = replace(condition, source_bchw=source_bchw.to(self.system.device))
        weighted = isinstance(config, FlowConfig) and config.foreground_weight
        mask_b1hw = mask_bhw[:, None].to(self.system.device)
        weight_b1hw = foreground_weight(mask_b1hw) if weighted else torch.ones_like(mask_b1hw)
        return Drawn(target_bchw.to(self.system.device), condition, weight_b1hw, edits)

    def _t2i_rows(self, count: int, generator: torch.Generator) -> Sequence[Tensor]:
        pool = self.pools["t2i"]
        rows = pool.rows(count, generator)
        target_bchw = pool.target_bchw[rows].float()
        # an empty mask: generation has no edited region, every latent pixel weighs 1
        return pool.ids_bt[rows], target_bchw, torch.zeros_like(target_bchw), torch.zeros_like(target_bchw[:, 0])

    def _edit_rows(self, count: int, generator: torch.Generator) -> Sequence[Tensor]:
        pool = self.pools["edit"]
        assert pool.source_bchw is not None and pool.mask_bhw is not None
        rows = pool.rows(count, generator)
        return (
            pool.ids_bt[rows],
            pool.target_bchw[rows].float(),
            pool.source_bchw[rows].float(),
            pool.mask_bhw[rows].float(),
        )


class FlowStage(TrainingStage):
    """v(x_sigma, sigma, condition) towards eps - x0 on the target panel, plus output KD on generation rows."""

    def __init__(
        self,
        config: FlowConfig | TeacherConfig,
        progress: Progress,
        system: DiffusionSystem,
        pools: dict[str, Pool],
        teacher: nn.Module | None = None,
    ) -> None:
        super().__init__(config, progress)
        self.config: FlowConfig | TeacherConfig = config
        self.system = system
        self.batches = BatchMaker(system, pools, config)
        self.trained = system.unet.train()
        self.start_averaging()
        self._teacher = None
        if teacher is not None and isinstance(config, FlowConfig) and config.distill_weight > 0:
            self._teacher = self.guest(teacher)
        keeping = isinstance(config, FlowConfig) and config.keep_edits
        self._parent = self.guest(copy.deepcopy(system.unet)) if keeping else None
        self._surroundings = [self.guest(system.vae), self.guest(system.text_encoder)]

    def step(self, update: int, generator: torch.Generator) -> StepResult:
        config = self.config
        drawn = self.batches.draw(generator)
        sigma_b = self.draw_levels(drawn, generator).to(self.device)
        noise = torch.randn(drawn.x0_bchw.shape, generator=generator).to(self.device)
        x_bchw = add_noise(drawn.x0_bchw, noise, sigma_b)
        predicted = velocity_model(self.trained).velocity(x_bchw, sigma_b, drawn.condition).float()
        loss_b = velocity_loss(predicted, velocity_target(drawn.x0_bchw, noise), drawn.weight_b1hw)
        if self._parent is not None and drawn.edits:
            kept_b = self.keeping(predicted, x_bchw, sigma_b, drawn)
            loss_b = torch.cat([kept_b, loss_b[drawn.edits :]])
        terms: dict[str, Tensor | float] = {}
        if drawn.edits < len(loss_b):
            terms["loss_t2i"] = loss_b[drawn.edits :].mean().detach()
        if drawn.edits:
            terms["loss_edit"] = loss_b[: drawn.edits].mean().detach()
        if self._teacher is None or drawn.edits == len(loss_b):
            return StepResult(loss_b.mean(), terms)
        kd_b = self.distillation(predicted, x_bchw, sigma_b, drawn)
        terms["loss_kd"] = kd_b.mean().detach()
        assert isinstance(config, FlowConfig)
        generations = config.data_weight * loss_b[drawn.edits :] + config.distill_weight * kd_b
        return StepResult((loss_b[: drawn.edits].sum() + generations.sum()) / len(loss_b), terms)

    def distillation(self, predicted_bchw: Tensor, x_bchw: Tensor, sigma_b: Tensor, drawn: Drawn) -> Tensor:
        """Squared distance to the teacher's velocity of each generation row; shape (rows,)."""
        assert self._teacher is not None
        rows = slice(drawn.edits, None)
        with torch.no_grad():
            condition = replace(drawn.condition[rows], source_bchw=None)
            guide_bchw = velocity_model(self._teacher()).velocity(x_bchw[rows], sigma_b[rows], condition).float()
        return output_loss(predicted_bchw[rows], guide_bchw)

    def keeping(self, predicted_bchw: Tensor, x_bchw: Tensor, sigma_b: Tensor, drawn: Drawn) -> Tensor:
        """Squared distance to the parent's velocity of each edit row; shape (edits,)."""
        assert self._parent is not None
        rows = slice(0, drawn.edits)
        with torch.no_grad():
            parent = velocity_model(self._parent())
            guide_bchw = parent.velocity(x_bchw[rows], sigma_b[rows], drawn.condition[rows]).float()
        return output_loss(predicted_bchw[rows], guide_bchw)

    def draw_levels(self, drawn: Drawn, generator: torch.Generator) -> Tensor:
        """A noise level a row, edits around a mean of their own; on the CPU."""
        config = self.config
        generations = len(drawn.x0_bchw) - drawn.edits
        parts = [draw_logit_normal(generations, generator, config.sigma_mean, config.sigma_std)]
        if isinstance(config, FlowConfig):
            parts.insert(0, draw_logit_normal(drawn.edits, generator, config.edit_sigma_mean, config.sigma_std))
        return torch.cat(parts)

    def validate_now(self, update: int) -> dict[str, float]:
        config = self.config
        if not config.validate_images or (update % config.validate_every and update != config.steps):
            return {}
        sampling = replace(sampling_of(config), steps=config.validate_steps)
        averaged = self.system.with_unet(self.averaged.eval(), sampling)
        return quick_scores(averaged, config.validate_images, seed=5)


def sampling_of(config: FlowConfig | TeacherConfig) -> SamplingDefaults:
    """How the trained checkpoint is meant to be sampled."""
    sampling = SamplingDefaults(
        steps=config.sampling_steps, guidance_text=config.guidance_text, shift=config.sampling_shift
    )
    if isinstance(config, FlowConfig):
        return replace(sampling, guidance_edit_text=config.guidance_edit_text, guidance_image=config.guidance_image)
    return sampling


def open_pools(system: DiffusionSystem, config: FlowConfig | TeacherConfig, ctx: StageContext) -> dict[str, Pool]:
    """The encoded data that a configuration's task mix needs."""
    share = config.edit_share if isinstance(config, FlowConfig) else 0.0
    curated = isinstance(config, FlowConfig) and config.curated
    tasks = [task for task, needed in (("t2i", share < 1), ("edit", share > 0)) if needed]
    return {
        task: open_pool(system, task, config.pool_samples, 0, ctx.cache, ctx.progress, curated=curated)
        for task in tasks
    }


def train(
    config: FlowConfig | TeacherConfig, ctx: StageContext, system: DiffusionSystem, teacher: nn.Module | None
) -> StageResult:
    """Trains `system`'s denoiser and writes the artefact; metrics are the last validation's."""
    stage = FlowStage(config, ctx.progress, system, open_pools(system, config, ctx), teacher)
    fit(stage, ctx, config.name)
    unet = stage.averaged.eval()
    system.with_unet(unet, sampling_of(config)).save(ctx.out)
    metrics = {
        "parameters_m": sum(p.numel() for p in unet.parameters()) / 1e6,
        "loss": stage.curves["loss"][-1][1],
        **{f"quick_{name}": stage.curves[name][-1][1] for name in ("t2i", "edit") if name in stage.curves},
    }
    if teacher is not None:
        metrics["velocity_mse"] = held_out_error(system, unet, teacher)
    return StageResult(metrics=metrics, curves=stage.curves, spec=dict(unet.config))


def held_out_error(system: DiffusionSystem, unet: nn.Module, teacher: nn.Module) -> float:
    """Mean squared distance of a student's velocities to the teacher's on held-out prompts, as after pruning."""
    batches = noised(latent_batches(system, "t2i", HELD_OUT_SAMPLES, HELD_OUT_SEED, HELD_OUT_BATCH), seed=HELD_OUT_SEED)
    return velocity_mse(unet, batches, predictions(teacher.to(system.device).eval(), batches), pair=True)


def run(config: FlowConfig, ctx: StageContext) -> StageResult:
    """One stage of the student, from its parent's weights."""
    assert ctx.parent is not None
    system = DiffusionSystem.load(ctx.parent, ctx.device)
    asked = config.distill_weight or config.measure_error
    teacher = DiffusionSystem.load(ctx.teacher, ctx.device).unet if ctx.teacher and asked else None
    return train(config, ctx, system, teacher)
