"""Opens a bundle: every file checked, then the parts that run, wherever the folder was copied to."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, FlowMatchEulerDiscreteScheduler
from transformers import PreTrainedTokenizerFast

from compress.bundle import text_encoder
from compress.bundle.checksums import FILE as CHECKSUMS
from compress.bundle.checksums import REMEDY, check_files
from compress.errors import UserError
from compress.quantization.halves import has_halves, with_runtime
from compress.quantization.runtime import open_runtime
from students.system import DiffusionSystem, SamplingDefaults
from students.unet import unet_without_weights
from teachers.base import VelocityModel

DESCRIPTION = "bundle.json"
FORMAT = 1
RUNTIMES = ("htp", "onnx")


def is_bundle(folder: Path) -> bool:
    """Whether this is a bundle, be it damaged; one file of two is enough to tell."""
    return any((folder / name).is_file() for name in (DESCRIPTION, CHECKSUMS))


def open_bundle(folder: Path, runtime: str) -> tuple[DiffusionSystem, VelocityModel]:
    """The system in `folder` and its denoiser, both computed by `runtime`, on this machine's CPU.

    Raises UserError for files that are missing or damaged, all at once, and for a runtime that a bundle is not for.
    """
    check_files(folder)
    made_as = json.loads((folder / DESCRIPTION).read_text())["format"]
    if made_as != FORMAT:
        remedy = f"This version opens format {FORMAT}; use the pocketdiff that made the bundle, or deploy again."
        raise UserError.of(f"the bundle has format {made_as!r}", str(folder / DESCRIPTION), remedy)
    if runtime not in RUNTIMES:
        remedy = f"Use --runtime {' or '.join(RUNTIMES)}, or the artefact that the bundle lies in."
        raise UserError.of(f"a bundle holds no float network for runtime {runtime}", str(folder), remedy)
    system = bundled_system(folder)
    return with_runtime(system, folder, runtime), open_runtime(folder, runtime, system.unet)


def bundled_system(folder: Path) -> DiffusionSystem:
    """The parts of a bundle around its denoiser; of networks that are only there compiled, the configuration."""
    try:
        return DiffusionSystem(
            unet_without_weights(folder),
            bundled_autoencoder(folder),
            text_encoder.OnnxTextEncoder(folder / text_encoder.FOLDER),
            PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
            FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
            SamplingDefaults.load(folder / "sampling.json"),
        )
    except (OSError, ValueError) as error:  # whole files, but not of this version's libraries
        raise UserError.of(f"the bundle cannot be loaded ({error})", str(folder), REMEDY) from None


def bundled_autoencoder(folder: Path) -> AutoencoderTiny:
    """The float autoencoder, or one without weights where both its halves are there quantized."""
    if not has_halves(folder):
        return AutoencoderTiny.from_pretrained(folder / "vae", use_safetensors=True)
    with torch.device("meta"):
        return AutoencoderTiny.from_config(AutoencoderTiny.load_config(folder / "vae"))
