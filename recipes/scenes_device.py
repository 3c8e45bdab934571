"""The shipped 4-step student to the HTP, with everything about it measured: every layer, and whole pictures emulated.

Command
    pocketdiff run scenes_device

Hardware
    2 CPU cores.

Time
    Not yet measured.

Expected
    Not yet measured. It is what stages quantize and deploy of scenes_full do, on more emulated pictures and with the
    table of all layers, and without the stages before them: their student is shipped.
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
