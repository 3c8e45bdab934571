"""What `make run` runs: the shipped teacher and the shipped joint student to a checked HTP binary in minutes.

Command
    make run, or pocketdiff run scenes

Hardware
    2 CPU cores, 6 GB of memory.

Time
    Not yet measured; asked for are <= 20 min on 2 cores.

Expected
    Not yet measured. The long stages up to joint are reused from students/weights, which progress and report say;
    pruning is shown live all the same, and all stages after joint run here, briefly.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from compress.recipe import Judge, Recipe
from recipes import scenes_full

PICTURES = 70  # of a kind, for the scores on the cards
LATER = ("joint_6",)  # of scenes_full, and too long for this
SHORT: dict[str, dict[str, Any]] = {
    "sft": {"steps": 100, "ema_decay": 0.98, "pool_samples": 16384, "validate_images": 0, "warmup_steps": 20},
    "reward": {"steps": 16, "pool_samples": 16384, "model_steps": 200, "judge_every": 16, "judge_images": 70},
    "distill": {
        "steps": 240,
        "pool_samples": 16384,
        "paths": 768,
        "regression_steps": 220,
        "validate_images": 0,
    },
    "deploy": {"eval_images": 14},
}


def recipe() -> Recipe:
    """The stages of scenes_full but for the later round, those after joint training with their fields in SHORT."""
    full = scenes_full.recipe()
    return Recipe(
        name="scenes",
        description="The shipped teacher to a checked HTP binary in minutes, long training reused.",
        teacher=full.teacher,
        stages=tuple(replace(stage, **SHORT.get(stage.name, {})) for stage in full.stages if stage.name not in LATER),
        live=("prune", "sft"),
        judge=Judge(images=PICTURES),
    )
