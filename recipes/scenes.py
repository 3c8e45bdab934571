"""What `make run` runs: scenes_full in minutes, its long stages reused from what the repository ships.

Command
    make run, or pocketdiff run scenes

Hardware
    2 CPU cores, 6 GB of memory.

Time
    Not yet measured; asked for are <= 20 min on 2 cores.

Expected
    The scores of scenes_full at a smaller sample. The joint student and the 4-step student are reused from
    students/weights, which progress and report say; prune, sft, quantize and deploy run here.
"""

from __future__ import annotations

from dataclasses import replace

from compress.config.quantize import DeployConfig
from compress.recipe import Judge, Recipe
from recipes import scenes_full

PICTURES = 70  # of a kind, for the scores on the cards
EMULATED = 14  # the emulator takes seconds a picture


def recipe() -> Recipe:
    """The stages of scenes_full under their own keys, so that what is shipped counts as theirs."""
    full = scenes_full.recipe()
    return replace(
        full,
        name="scenes",
        description="The shipped teacher to a checked HTP binary in minutes, long training reused.",
        stages=tuple(
            replace(stage, eval_images=EMULATED) if isinstance(stage, DeployConfig) else stage for stage in full.stages
        ),
        live=("prune", "sft", "quantize", "deploy"),
        judge=Judge(images=PICTURES),
    )
