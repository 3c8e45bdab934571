"""The shipped 4-step student to the HTP, with everything about it measured: every layer, and whole pictures emulated.

Command
    pocketdiff run scenes_device

Hardware
    2 CPU cores.

Time
    About 1 h on 2 cores without AVX-512: 5 min quantize, 5 to 12 min for the layers, 40 min for 1,600 forwards of the
    emulator (2.7 s each, two side by side), which nothing else should slow down.

Expected
    451 layers between 44 and 102 dB (emulator against simulation), 64.3 dB at the output over whole trajectories; 200
    generated pictures and 200 edits score 0.695 on the emulator, 0.692 in AIMET's simulation and in float. It is what
    stages quantize and deploy of scenes_full do, on more pictures; their student is shipped.
"""

from __future__ import annotations

from compress.config.quantize import DeployConfig, QuantizeConfig
from compress.recipe import Judge, Recipe, TeacherRef
from recipes.scenes_full import PICTURES

STUDENT = TeacherRef(folder="students/weights/scenes_full/70-distill")  # 4 steps
EMULATED = 400  # pictures, half of them edits


def recipe() -> Recipe:
    """Two stages."""
    return Recipe(
        name="scenes_device",
        description="The shipped 4-step student in W8A16, layer by layer and in whole pictures on the HTP's emulator.",
        teacher=STUDENT,
        stages=(QuantizeConfig(), DeployConfig(eval_images=EMULATED, layers="all")),
        judge=Judge(images=PICTURES),
    )
