"""The scenes teacher from nothing: autoencoder, text encoder, denoiser.

Command
    pocketdiff run teacher_scenes
    Its last artefact is shipped as teachers/weights/scenes; every student's recipe starts from it.

Hardware
    One data-centre GPU, or 2 CPU cores.

Time
    1 h 46 min on one busy CPU core: 13 min, 4 min and 1 h 29 min.

Expected
    T2I 0.627 (0.602 to 0.651, n = 1,002), held-out pairs 0.035; asked for are >= 0.90 and >= 0.75.
"""

from __future__ import annotations

from compress.config.flow import TeacherConfig
from compress.config.teacher import TextConfig, VaeConfig
from compress.recipe import Recipe

VAE_STEPS, TEXT_STEPS, TEACHER_STEPS = 6_000, 800, 10_000


def recipe() -> Recipe:
    """Three stages, each starting from the artefact of the one before."""
    stages = (
        VaeConfig(steps=VAE_STEPS),
        TextConfig(steps=TEXT_STEPS),
        TeacherConfig(steps=TEACHER_STEPS),
    )
    return Recipe(
        name="teacher_scenes",
        description="Trains the teacher of the embedded world from nothing.",
        teacher=None,
        stages=stages,
    )
