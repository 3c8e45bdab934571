"""The smallest real system: every part of a checkpoint with random weights, for tests of mechanics."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from transformers import CLIPTextConfig, CLIPTextModel

from compress.progress import LineProgress
from compress.stages.context import StageContext
from compress.stages.text import build_tokenizer
from students.spec import CROSS, NONE, SELF_CROSS, StudentSpec
from students.system import DiffusionSystem, SamplingDefaults

SPEC = StudentSpec(
    widths=(64, 64, 64),
    layers_per_block=(1, 1, 1),
    transformer_layers=(1, 1, 1),
    heads=(1, 1, 1),
    down_attention=(CROSS, CROSS, SELF_CROSS),
    up_attention=(NONE, CROSS, SELF_CROSS),
    cross_dim=32,
    text_dim=32,
    size_dim=32,
    size_values=2,
    kv_heads=1,
    ff_mult=2,
    qk_norm=True,
    separable=True,
    in_channels=4,
    out_channels=4,
    sample_size=8,
)


def tiny_system(seed: int = 0, sampling: SamplingDefaults | None = None) -> DiffusionSystem:
    """A student of 1.4 M parameters, an autoencoder of 8 channels and a text encoder of one layer, untrained."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            projection_dim=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=32,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
        latent_channels=4,
    )
    return DiffusionSystem(SPEC.build(), vae, text, tokenizer, sampling=sampling or SamplingDefaults(steps=4))


def context(folder: Path, parent: Path | None = None, teacher: Path | None = None) -> StageContext:
    """A stage's context whose folders lie under `folder`."""
    (folder / "out").mkdir(parents=True, exist_ok=True)
    return StageContext(
        out=folder / "out",
        work=folder / "work",
        parent=parent,
        teacher=teacher,
        device=torch.device("cpu"),
        progress=LineProgress(every_s=1e9),
        cache=folder.parent / "cache",
    )
