"""The autoencoder for the HTP: its two halves as graphs of modules, and an autoencoder made of quantized halves.

The host keeps what is exact there and costs a grid here: pictures cross the line in [0, 1] as a screen has them, and
the latent divided by 3, whose hyperbolic tangent bounds what the decoder sees. The factor of 3 behind the tangent is
part of the first convolution's weights (exact, zero padding included).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, fx, nn

from compress.errors import UserError
from compress.quantization.graph import TRACE_BATCH
from compress.quantization.lowering import lower
from compress.quantization.passes.noops import drop_noops

BOUND = 3.0  # of the latent, diffusers' DecoderTiny
ENCODER, DECODER = HALVES = ("vae_encoder", "vae_decoder")
INPUT_OF = {ENCODER: "picture", DECODER: "latent"}
OUTPUT_OF = {ENCODER: "encoded", DECODER: "decoded"}


class EncoderBehindHost(nn.Module):
    """picture (b, 3, h, w) in [0, 1] -> latent."""

    def __init__(self, vae: AutoencoderTiny) -> None:
        super().__init__()
        self.layers = vae.encoder.layers

    def forward(self, picture: Tensor) -> Tensor:
        return self.layers(picture)


class DecoderBehindHost(nn.Module):
    """latent / 3 -> picture (b, 3, h, w) in about [0, 1]."""

    def __init__(self, vae: AutoencoderTiny) -> None:
        super().__init__()
        first, *others = vae.decoder.layers
        first = copy.copy(first)
        first._parameters = {**first._parameters, "weight": nn.Parameter(BOUND * first.weight, requires_grad=False)}
        self.layers = nn.Sequential(first, *others)

    def forward(self, latent: Tensor) -> Tensor:
        return self.layers(torch.tanh(latent))


@dataclass(frozen=True)
class NamedTensors:
    """Inputs of a graph by name, batch-first, in the graph's order."""

    names: tuple[str, ...]
    values: tuple[Tensor, ...]

    def tensors(self) -> tuple[Tensor, ...]:
        return self.values

    def named(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.values, strict=True))

    def __len__(self) -> int:
        return len(self.values[0])

    def __getitem__(self, rows: slice | Tensor | Sequence[int]) -> NamedTensors:
        return NamedTensors(self.names, tuple(value[rows] for value in self.values))


def half_graph(vae: nn.Module, half: str, latent_chw: tuple[int, int, int]) -> fx.GraphModule:
    """The graph of one half (ENCODER or DECODER) for latents of this shape; valid at any batch size.

    Raises UserError for another kind of autoencoder.
    """
    if not isinstance(vae, AutoencoderTiny):
        raise UserError.of(
            f"the autoencoder is a {type(vae).__name__}", "quantization", "Only an AutoencoderTiny can be quantized."
        )
    channels, rows, columns = latent_chw
    scale = 2 ** (len(vae.config.encoder_block_out_channels) - 1)
    module = EncoderBehindHost(vae) if half == ENCODER else DecoderBehindHost(vae)
    shape = (3, rows * scale, columns * scale) if half == ENCODER else (channels, rows, columns)
    example = {INPUT_OF[half]: torch.zeros(TRACE_BATCH, *shape)}
    with torch.no_grad():
        program = torch.export.export(module.eval(), (), example)
    traced = program.module(check_guards=False)
    drop_noops(traced)
    return lower(traced)


def picture_input(x_bchw: Tensor) -> NamedTensors:
    """What the encoder's graph takes for pictures in [-1, 1]."""
    return NamedTensors((INPUT_OF[ENCODER],), (((x_bchw.float() + 1) / 2).cpu(),))


def latent_input(z_bchw: Tensor) -> NamedTensors:
    """What the decoder's graph takes for latents."""
    return NamedTensors((INPUT_OF[DECODER],), ((z_bchw.float() / BOUND).cpu(),))


class HostAutoencoder(nn.Module):
    """An autoencoder whose halves are any functions of their graphs' inputs: takes the place of AutoencoderTiny."""

    def __init__(
        self, config: Any, encode: Callable[[NamedTensors], Tensor], decode: Callable[[NamedTensors], Tensor]
    ) -> None:
        super().__init__()
        self.config = config
        self._encode, self._decode = encode, decode
        self.register_parameter("_dtype", nn.Parameter(torch.zeros(()), requires_grad=False))  # asked for by callers

    @torch.no_grad()
    def encode(self, x_bchw: Tensor) -> SimpleNamespace:
        """Pictures in [-1, 1] to latents."""
        return SimpleNamespace(latents=self._encode(picture_input(x_bchw)))

    @torch.no_grad()
    def decode(self, z_bchw: Tensor) -> SimpleNamespace:
        """Latents to pictures in about [-1, 1]."""
        return SimpleNamespace(sample=2 * self._decode(latent_input(z_bchw)) - 1)
