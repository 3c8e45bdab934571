"""Trains the scenes teacher: diffusers' UNet2DConditionModel with SDXL's topology in small, generation only."""

from __future__ import annotations

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from compress.config.flow import TeacherConfig
from compress.stages.context import StageContext, StageResult
from compress.stages.flow import sampling_of, train
from students.system import DiffusionSystem

HEAD_WIDTH = 64


def build(config: TeacherConfig, latent_channels: int, latent_side: int, text_width: int) -> UNet2DConditionModel:
    """An untrained U-Net: no attention in the first stage, growing transformer depth, pooled text and size."""
    return UNet2DConditionModel(
        sample_size=latent_side,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=config.widths,
        layers_per_block=config.layers_per_block,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=config.depths,
        attention_head_dim=tuple(width // HEAD_WIDTH for width in config.widths),  # diffusers' name for head counts
        use_linear_projection=True,
        cross_attention_dim=text_width,
        addition_embed_type="text_time",
        addition_time_embed_dim=config.size_embedding,
        projection_class_embeddings_input_dim=text_width + 2 * config.size_embedding,
    )


def run(config: TeacherConfig, ctx: StageContext) -> StageResult:
    """Trains the denoiser in the latent space and on the text features of the parent artefact."""
    assert ctx.parent is not None
    torch.manual_seed(config.seed)
    vae = AutoencoderTiny.from_pretrained(ctx.parent / "vae", use_safetensors=True)
    text_encoder = CLIPTextModel.from_pretrained(ctx.parent / "text_encoder", use_safetensors=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(ctx.parent / "tokenizer")
    side = 64 // 2 ** (len(vae.config.encoder_block_out_channels) - 1)
    unet = build(config, vae.config.latent_channels, side, text_encoder.config.hidden_size)
    system = DiffusionSystem(unet, vae, text_encoder, tokenizer, sampling=sampling_of(config))
    return train(config, ctx, system.to(ctx.device), teacher=None)
