"""What the pipeline adds to every stage's card that holds a checkpoint: its cost, and what it can do."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.recipe import Judge
from compress.stages.context import Progress

if TYPE_CHECKING:
    import torch

    from students.spec import StudentSpec


def examine(folder: Path, judge: Judge | None, device: torch.device, progress: Progress) -> dict[str, float]:
    """Cost of the network in `folder` and, with a judge, its scores; empty where there is no network."""
    if not (folder / "unet" / "config.json").is_file():
        return {}
    metrics = cost_of(folder)
    if judge is not None:
        module, _, function = judge.runner.partition(":")
        metrics |= getattr(importlib.import_module(module), function)(folder, judge.images, device, progress)
    return metrics


def cost_of(folder: Path) -> dict[str, float]:
    """parameters_m, macs_g of one forward, size_mb_w8_padded: of the U-Net in `folder` at its own latent size.

    The length of texts is that of the text encoder beside it; a U-Net alone is told 77 tokens, as SDXL is.
    """
    from compress.cost import cost

    unet = config_of(folder, "unet")
    text = config_of(folder, "text_encoder") if (folder / "text_encoder").is_dir() else {}
    height = unet["sample_size"]
    pair = unet["_class_name"] == "DreamLiteUNetModel"  # target and source stand side by side
    return cost(spec_of(folder), height, height * (1 + pair), text.get("max_position_embeddings", 77)).metrics()


def spec_of(folder: Path) -> StudentSpec:
    """The architecture of the U-Net in the checkpoint `folder`."""
    from students.spec import StudentSpec

    unet = config_of(folder, "unet")
    pooled = unet.get("addition_embed_type") == "text_time"  # SDXL reads the pooled text, DreamLite does not
    return StudentSpec.from_config(unet, config_of(folder, "text_encoder")["hidden_size"] if pooled else None)


def config_of(folder: Path, part: str) -> dict[str, Any]:
    """The configuration of one part of a checkpoint."""
    config: dict[str, Any] = json.loads((folder / part / "config.json").read_text())
    return config
