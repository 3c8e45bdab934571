"""What a finished artefact can do: its scenes scores for the card, and samples to look at, the same for every stage."""

from __future__ import annotations

from pathlib import Path

import torch

from compress.data.scenes.captions import T2I_TASKS
from compress.data.scenes.edits import EDIT_TASKS
from compress.evaluation.pictures import save_samples
from compress.evaluation.scenes_bench import (
    edit_samples,
    evaluate,
    generator_of,
    judge_editing,
    judge_generation,
    t2i_samples,
)
from compress.evaluation.verdicts import save_verdicts
from compress.quantization.runtime import QUANTIZED, open_runtime
from compress.stages.context import Progress
from students.system import DiffusionSystem

SEED = 2024
SAMPLES_SEED = 7


def measure(
    folder: Path, images: int, device: torch.device | str = "cpu", progress: Progress | None = None
) -> dict[str, float]:
    """Scores the checkpoint in `folder` on `images` prompts (and edits) and writes `folder/samples/`.

    One picture a task goes into the samples, the same prompts and noise for every checkpoint; beside them lie the
    verdicts on all scored ones. Returns flat metrics:
    t2i, edit, overall with their intervals, each task, held-out pairs and the PSNR of untouched pixels.
    """
    system = DiffusionSystem.load(folder, device)
    # what a quantized artefact stands for is its quantized network, not the float one it was made from
    denoiser = open_runtime(folder, "onnx", system.unet) if (folder / QUANTIZED).is_dir() else None
    make = generator_of(system, SAMPLES_SEED, denoiser=denoiser)
    judged = judge_generation(make, t2i_samples(len(T2I_TASKS), SAMPLES_SEED))
    if system.edits:
        judged += judge_editing(make, edit_samples(len(EDIT_TASKS), SAMPLES_SEED))[0]
    save_samples(folder, judged)
    if images < 1:
        return {}
    make = generator_of(system, SEED, denoiser=denoiser)
    scores = evaluate(make, images, SEED, progress, edits=system.edits)
    save_verdicts(folder, scores.verdicts, SEED, images)
    return {**scores.metrics(), "scored_images": float(images)}
