"""scenes_full with sixteen times the samples, for one data-centre GPU; the same stages, data and checks.

Command
    pocketdiff run teacher_scenes --teacher.batch_size 512 --teacher.pool_samples 524288
    pocketdiff run scenes_gpu --teacher.folder runs/teacher_scenes/30-teacher

Hardware
    One data-centre GPU (bf16, compiled, latents cached); quantize and deploy run on its host's CPU.

Time
    Not yet run; asked for are <= 25 min.

Expected
    Not yet run. Asked for are teacher >= 0.90 and >= 0.75 on held-out pairs; with <= 35 % of the teacher's parameters
    T2I >= 0.95 x teacher, edit >= 0.80; 4 steps within 0.05 of many. The curves of scenes_full show how far its
    sixteenth of the samples goes.
"""

from __future__ import annotations

from dataclasses import replace

from compress.config.base import StageConfig
from compress.config.flow import FlowConfig
from compress.config.train import TrainConfig
from compress.recipe import Judge, Recipe
from recipes import scenes_full

BATCH = 16 * scenes_full.BATCH
POOL_SAMPLES = 524_288
ROUNDS = (*scenes_full.rounds(), *scenes_full.later_rounds())


def lengthened(stage: StageConfig) -> StageConfig:
    """A flow-matching stage with larger batches from a larger pool, joint training in one go; the rest in bf16."""
    if not isinstance(stage, FlowConfig):
        return replace(stage, precision="bf16") if isinstance(stage, TrainConfig) else stage
    extra_steps = sum(each.steps for each in ROUNDS if isinstance(each, FlowConfig)) if stage.name == "joint" else 0
    return replace(
        stage, steps=stage.steps + extra_steps, batch_size=BATCH, precision="bf16", pool_samples=POOL_SAMPLES
    )


def recipe() -> Recipe:
    """All nine stages."""
    full = scenes_full.recipe()
    return replace(
        full,
        name="scenes_gpu",
        description="Teacher to HTP binary on the embedded world, with a GPU's share of samples.",
        judge=Judge(images=scenes_full.PICTURES),
        stages=tuple(lengthened(stage) for stage in full.stages if stage not in ROUNDS),
    )
