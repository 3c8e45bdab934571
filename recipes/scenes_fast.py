"""All nine stages of scenes in minutes, with tiny step counts: tests that the joints hold, not what they achieve.

Command
    pocketdiff run scenes_fast --fresh

Hardware
    2 CPU cores, 4 GB of memory.

Time
    210 s on 2 slow CPU cores, beside other tests.

Expected
    Every artefact, the binary and the report; scores near zero, for nothing is trained long enough to draw.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from compress.recipe import Judge, Recipe
from recipes import scenes_full

FLOW = {
    "steps": 12,
    "batch_size": 16,
    "warmup_steps": 2,
    "pool_samples": 128,
    "sampling_steps": 4,
    "validate_images": 0,
}
TINY: dict[str, dict[str, Any]] = {
    "prune": {"calibration_samples": 16, "fitting_samples": 32, "held_out_samples": 16},
    "t2i": FLOW,
    "edit": FLOW,
    "joint": FLOW,
    "sft": FLOW,
    "reward": {
        "steps": 4,
        "batch_size": 8,
        "warmup_steps": 1,
        "pool_samples": 128,
        "sampler_steps": 4,
        "model_steps": 20,
        "model_batch_size": 32,
        "model_pictures": 64,
        "model_specs": 256,
        "judge_every": 4,
        "judge_images": 14,
    },
    "distill": {
        "steps": 8,
        "batch_size": 8,
        "warmup_steps": 1,
        "pool_samples": 128,
        "paths": 16,
        "path_steps": 4,
        "regression_steps": 4,
        "fake_warmup_steps": 2,
        "validate_every": 8,
        "validate_images": 0,
    },
    "quantize": {"generations": 4, "edits": 4},
    "deploy": {"eval_images": 0},
}


def recipe() -> Recipe:
    """The stages of scenes_full, each with its fields in TINY."""
    full = scenes_full.recipe()
    return Recipe(
        name="scenes_fast",
        description="Every stage of scenes in minutes, to test the joints.",
        teacher=full.teacher,
        stages=tuple(replace(stage, **TINY[stage.name]) for stage in full.stages if stage.name in TINY),
        judge=Judge(images=14, images_of={"prune": 7}),  # which is sampled in the teacher's many steps
    )
