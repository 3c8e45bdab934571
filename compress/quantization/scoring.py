"""Scenes scores of a system whose U-Net runs by other means, on the pictures that its float form was scored on."""

from __future__ import annotations

from pathlib import Path

from compress.evaluation.measure import SAMPLES_SEED, SEED
from compress.evaluation.pictures import save_samples
from compress.evaluation.scenes_bench import (
    EDIT_TASKS,
    T2I_TASKS,
    edit_samples,
    evaluate,
    generator_of,
    judge_editing,
    judge_generation,
    t2i_samples,
)
from compress.evaluation.verdicts import save_verdicts
from compress.stages.context import Progress
from students.system import DiffusionSystem
from teachers.base import VelocityModel


def scores(
    system: DiffusionSystem,
    denoiser: VelocityModel,
    images: int,
    progress: Progress | None = None,
    seed: int = SEED,
    held_out: bool = True,
    folder: Path | None = None,
    form: str = "",
) -> dict[str, float]:
    """t2i, edit, overall, tasks and intervals of `images` prompts and as many edits; prompts and noise fixed by seed.

    The seed of `compress.evaluation.measure` by default, so that the float parent's card holds the same pictures. With
    a `folder` the verdicts one by one are left beside its samples, under the name `form`.
    """
    report = evaluate(generator_of(system, seed, denoiser=denoiser), images, seed, progress, held_out=held_out)
    if folder is not None:
        save_verdicts(folder, report.verdicts, seed, images, form)
    return {**report.metrics(), "scored_images": float(images)}


def save_sample_pictures(folder: Path, system: DiffusionSystem, denoiser: VelocityModel) -> None:
    """`folder/samples/`: the prompts and edits that every stage shows, made with `denoiser`."""
    make = generator_of(system, SAMPLES_SEED, denoiser=denoiser)
    judged = judge_generation(make, t2i_samples(len(T2I_TASKS), SAMPLES_SEED))
    judged += judge_editing(make, edit_samples(len(EDIT_TASKS), SAMPLES_SEED))[0]
    save_samples(folder, judged)
