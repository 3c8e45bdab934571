"""The three trainings that make a scenes teacher from nothing: the autoencoder, the text encoder, the denoiser."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from compress.config.train import TrainConfig
from compress.errors import Problem


@dataclass(frozen=True, kw_only=True)
class VaeConfig(TrainConfig):
    """AutoencoderTiny, x8. Latents are trained under noise, so that the decoder snaps them onto clean shapes.

    `latent_noise` is the largest standard deviation of that noise, relative to unit-variance latents.
    """

    kind: ClassVar[str] = "vae"
    runner: ClassVar[str] = "compress.stages.vae:run"
    code_version: ClassVar[int] = 2

    name: str = "vae"
    batch_size: int = 16
    learning_rate: float = 2e-3
    channels: tuple[int, ...] = (32, 32, 32, 32)
    encoder_blocks: tuple[int, ...] = (0, 1, 2, 2)  # finest level first, where a block is dearest
    decoder_blocks: tuple[int, ...] = (2, 2, 1, 1)  # coarsest level first
    latent_channels: int = 16
    latent_noise: float = 0.5
    pool_images: int = 16384
    validate_every: int = field(default=500, metadata={"in_key": False})
    validate_images: int = field(default=500, metadata={"in_key": False})

    def problems(self) -> list[Problem]:
        """Also: one more level than downsamplings."""
        return [
            *super().problems(),
            *self.expect(len(self.channels) == 4, "channels", "Give four widths: the autoencoder downsamples by 8."),
            *self.expect(len(self.encoder_blocks) == len(self.channels), "encoder_blocks", "Give one a level."),
            *self.expect(len(self.decoder_blocks) == len(self.channels), "decoder_blocks", "Give one a level."),
            *self.expect(self.latent_noise >= 0, "latent_noise", "Use 0 or a standard deviation such as 0.5."),
        ]


@dataclass(frozen=True, kw_only=True)
class TextConfig(TrainConfig):
    """A CLIPTextModel that learns to read: what each word stands for, and what the whole text means."""

    kind: ClassVar[str] = "text"
    runner: ClassVar[str] = "compress.stages.text:run"
    code_version: ClassVar[int] = 2

    name: str = "text"
    ema_decay: float = 0.99  # the run is short
    batch_size: int = 128
    learning_rate: float = 1e-3
    width: int = 128
    layers: int = 3
    heads: int = 4
    tokens: int = 32
