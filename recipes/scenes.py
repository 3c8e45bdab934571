"""What `make run` runs: the shipped teacher to a checked HTP binary in minutes, every student stage trained here.

Command
    make run, or pocketdiff run scenes

Hardware
    2 CPU cores, 6 GB of memory.

Time
    Not yet measured; asked for are <= 20 min on 2 cores.

Expected
    Not yet measured. A student that has seen a hundredth of scenes_full's samples: it shows what every stage does to
    it, not how good it can become.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from compress.recipe import Judge, Recipe
from recipes import scenes_full

PICTURES = 70  # of a kind, for the scores on the cards
FLOW = {"batch_size": 64, "pool_samples": 16384, "sampling_steps": 16, "validate_images": 0, "warmup_steps": 50}
SHORT: dict[str, dict[str, Any]] = {
    "t2i": FLOW | {"steps": 300, "ema_decay": 0.98},
    "edit": FLOW | {"steps": 900, "ema_decay": 0.99},
    "joint": FLOW | {"steps": 900, "ema_decay": 0.99},
    "sft": FLOW | {"steps": 100, "ema_decay": 0.98},
    "reward": {"steps": 40, "pool_samples": 16384, "model_steps": 300, "judge_every": 40, "judge_images": 70},
    "distill": {
        "steps": 400,
        "pool_samples": 16384,
        "paths": 1024,
        "regression_steps": 300,
        "validate_images": 0,
    },
    "deploy": {"eval_images": 14},
}


def recipe() -> Recipe:
    """The stages of scenes_full but for its rounds, each with its fields in SHORT."""
    full, rounds = scenes_full.recipe(), scenes_full.rounds()
    return Recipe(
        name="scenes",
        description="The shipped teacher to a checked HTP binary in minutes; every stage runs here.",
        teacher=full.teacher,
        stages=tuple(replace(stage, **SHORT.get(stage.name, {})) for stage in full.stages if stage not in rounds),
        judge=Judge(images=PICTURES),
    )
