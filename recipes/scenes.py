"""What `make run` runs: the chain of scenes_full, its long trainings taken from what the repository ships.

Command
    make run, or pocketdiff run scenes; with --fresh nothing is reused and it takes as long as scenes_full.

Hardware
    2 CPU cores, 6 GB of memory.

Time
    Not yet measured; asked for are <= 20 min on 2 cores.

Expected
    The scores of scenes_full, on fewer pictures; prune, sft, quantize and deploy are computed here.
"""

from __future__ import annotations

from compress.recipe import Judge, Recipe
from recipes import scenes_full

LIVE = ("prune", "sft", "quantize", "deploy")
PICTURES = 210  # of a kind, for the scores of the stages that run here


def recipe() -> Recipe:
    """The stages of scenes_full, key for key, some of them live."""
    return Recipe(
        name="scenes",
        description="Teacher to HTP binary on the embedded world; long trainings come from the shipped artefacts.",
        teacher=scenes_full.TEACHER,
        stages=(*scenes_full.training(), *scenes_full.post_training(), *scenes_full.device()),
        live=LIVE,
        judge=Judge(images=PICTURES),
    )
