"""What `make run` runs: scenes_full in minutes, its long stages reused from what the repository ships.

Command
    make run, or pocketdiff run scenes

Hardware
    2 CPU cores, 6 GB of memory.

Time
    10 min 39 s on 2 cores, from a fresh clone: prune 1 min, sft 4 min, quantize 3 min (most of it scoring 2,000
    pictures), deploy 2 min. A machine whose cores were shared took 1.6 times as long.

Expected
    Those of scenes_full: 6.28 M parameters (29 % of the teacher's), and after quantize T2I 0.68 and edits 0.66 in 4
    steps on 1,000 of each; a binary of 7.5 MB without float ops, 64.7 dB between emulator and simulation. The joint and
    the 4-step student are reused from students/weights, which progress and report say; prune, sft, quantize and deploy
    run here. As distill is there already, nothing builds upon the sft checkpoint made here; it is judged all the same.
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
