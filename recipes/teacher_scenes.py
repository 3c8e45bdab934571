"""The scenes teacher from nothing: autoencoder, text encoder, denoiser.

Command
    pocketdiff run teacher_scenes
    Its last artefact is shipped as teachers/weights/scenes; every student's recipe starts from it.

Hardware
    One data-centre GPU, or 2 CPU cores.

Time
    Not yet measured.

Expected
    Not yet measured; asked for are >= 0.90 overall on scenes with guidance and >= 0.75 on held-out pairs.
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
