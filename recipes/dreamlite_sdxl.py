"""SDXL's U-Net (2.57 B) to DreamLite's (389,968,388 parameters), by its weights alone, tensor by tensor.

Command
    pocketdiff run dreamlite_sdxl --until prune --teacher.path DIR
    DIR is a diffusers folder that holds unet/ (safetensors, whole or sharded, fp16, bf16 or fp32), or a Hub id. With
    DIR/calibration.safetensors (compress/pruning/stream/samples.py says what is in it) and `--prune.calibrated true`
    criteria may look at data, such as `--prune.criterion taylor`, and norms are fitted to activations.

Hardware
    2 CPU cores, 4 GB of memory (calibrated 14 GB), 0.8 GB of disk beside the teacher's file.

Time
    51 s on a processor with 2 cores, where reading the file takes 0.65 s; peak memory 2.0 GB (`pocketdiff bench surgery
    --json`). Asked for are 2.5 times reading plus 60 s, and 4 GB. Calibrated, by 8 samples of 512 px, taylor and the
    weights' own layers: 19 min and 7.5 GB, on a processor without AMX; the dearest, obs_diff with laptop's layers
    (60 forwards, each with one layer skipped): 43 min and 7.4 GB, of 14 that are asked for, beside another job.

Expected
    unet/ with exactly 389,968,388 parameters, which stock `diffusers.DreamLiteUNetModel` loads, and provenance.json. It
    has to be trained before it draws: nothing was fitted to samples.
"""

from __future__ import annotations

from compress.config.stream import StreamConfig
from compress.recipe import ForeignTeacher, Recipe

TEACHER = ForeignTeacher(path="stabilityai/stable-diffusion-xl-base-1.0")


def recipe() -> Recipe:
    """One stage so far: training at full size needs data that the repository does not hold."""
    return Recipe(
        name="dreamlite_sdxl",
        description="SDXL's U-Net to DreamLite's at full size, streamed.",
        teacher=TEACHER,
        stages=(StreamConfig(),),
    )
