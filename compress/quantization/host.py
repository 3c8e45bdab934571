"""The line between the network on the HTP and the host: what the host computes, in what shapes, and how it is called.

Shape suffixes: b batch, c latent channels, h and w rows and columns of the latent pair, t text tokens, d width.

The HTP graph starts behind the sinusoids: sin and cos of a timestep of 1000 do not survive 16-bit grids, and cost the
host nothing. It also knows nothing of panels: the host joins (target | source) along the width and crops the answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor

from teachers.base import Condition

INPUT_NAMES = ("sample", "time_sinusoid", "size_sinusoid", "tokens")
OUTPUT_NAME = "velocity"


@dataclass(frozen=True)
class IoSpec:
    """Everything the host needs to call the network; written beside the binary as io_spec.json.

    `latent_chw` is the latent *pair*: (channels, rows, 2 * columns). `time_width` and `size_width` are the widths of
    the sinusoids of 1000 * sigma and of (width_px, height_px), `tokens_td` is (text tokens, text width).
    """

    latent_chw: tuple[int, int, int]
    time_width: int
    size_width: int
    tokens_td: tuple[int, int]
    out_channels: int
    flip_sin_to_cos: bool
    freq_shift: float

    @classmethod
    def of_unet(cls, config: dict, latent_hw: tuple[int, int], tokens: int) -> IoSpec:
        """From a DreamLiteUNetModel's config, the (rows, columns) of one latent panel and the number of text tokens."""
        rows, columns = latent_hw
        return cls(
            latent_chw=(config["in_channels"], rows, 2 * columns),
            time_width=config["block_out_channels"][0],
            size_width=config["projection_class_embeddings_input_dim"],
            tokens_td=(tokens, config["encoder_hid_dim"] or config["cross_attention_dim"]),
            out_channels=config["out_channels"],
            flip_sin_to_cos=config["flip_sin_to_cos"],
            freq_shift=config["freq_shift"],
        )

    def shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        """Input name -> shape, in the network's order."""
        return {
            "sample": (batch, *self.latent_chw),
            "time_sinusoid": (batch, self.time_width),
            "size_sinusoid": (batch, self.size_width),
            "tokens": (batch, *self.tokens_td),
        }

    def save(self, path: Path) -> None:
        described = {
            **asdict(self),
            "inputs": {
                name: {"shape": list(shape), "dtype": "float32", "meaning": _MEANING[name]}
                for name, shape in self.shapes(1).items()
            },
            "output": {
                "name": OUTPUT_NAME,
                "shape": [1, self.out_channels, *self.latent_chw[1:]],
                "dtype": "float32",
                "meaning": "velocity eps - x0 of the pair; the left half of the columns is the answer",
            },
        }
        path.write_text(json.dumps(described, indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> IoSpec:
        fields = json.loads(path.read_text())
        return cls(
            latent_chw=tuple(fields["latent_chw"]),
            time_width=fields["time_width"],
            size_width=fields["size_width"],
            tokens_td=tuple(fields["tokens_td"]),
            out_channels=fields["out_channels"],
            flip_sin_to_cos=fields["flip_sin_to_cos"],
            freq_shift=fields["freq_shift"],
        )


_MEANING = {
    "sample": "latent pair: noisy target left, clean source right (zeros to generate)",
    "time_sinusoid": "sinusoidal embedding of the timestep 1000 * sigma",
    "size_sinusoid": "sinusoidal embeddings of the target's width and height in pixels, joined",
    "tokens": "text encoder's last hidden states",
}


@dataclass(frozen=True)
class NetworkInputs:
    """What one call of the network takes, batch-first, in the network's order."""

    sample_bchw: Tensor
    time_sinusoid_bd: Tensor
    size_sinusoid_bd: Tensor
    tokens_btd: Tensor

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.sample_bchw, self.time_sinusoid_bd, self.size_sinusoid_bd, self.tokens_btd

    def __len__(self) -> int:
        return self.sample_bchw.shape[0]

    def __getitem__(self, rows: slice | Tensor | Sequence[int]) -> NetworkInputs:
        return NetworkInputs(*(tensor[rows] for tensor in self.tensors()))

    @staticmethod
    def cat(parts: Sequence[NetworkInputs]) -> NetworkInputs:
        columns = zip(*(part.tensors() for part in parts), strict=True)
        return NetworkInputs(*(torch.cat(column) for column in columns))


def network_inputs(spec: IoSpec, x_bchw: Tensor, sigma_b: Tensor, condition: Condition) -> NetworkInputs:
    """The host's share of one call, in float32 on the CPU. x_bchw is one panel; sigma_b in (0, 1]."""
    if condition.size_b2 is None:
        raise ValueError("the student is told the target's size in pixels, but the condition has none")
    if condition.mask_bt is not None and bool((condition.mask_bt == 0).any()):
        raise ValueError("the HTP graph attends to every text token; a padding mask cannot be given to it")
    x_bchw = x_bchw.detach().float().cpu()
    source = condition.source_bchw
    source_bchw = torch.zeros_like(x_bchw) if source is None else source.detach().float().cpu()

    def sinusoid(values: Tensor, width: int) -> Tensor:
        flat = values.detach().float().cpu().flatten()
        return get_timestep_embedding(flat, width, spec.flip_sin_to_cos, downscale_freq_shift=spec.freq_shift)

    size_b2 = condition.size_b2
    return NetworkInputs(
        torch.cat([x_bchw, source_bchw], dim=3),
        sinusoid(1000.0 * sigma_b, spec.time_width),
        sinusoid(size_b2, spec.size_width // size_b2.shape[1]).reshape(len(x_bchw), spec.size_width),
        condition.tokens_btd.detach().float().cpu(),
    )


class HostDenoiser:
    """A VelocityModel around any `forward(NetworkInputs) -> velocity pair`: float graph, simulation, ONNX or HTP."""

    def __init__(self, spec: IoSpec, forward: Callable[[NetworkInputs], Tensor]) -> None:
        self.spec = spec
        self.forward = forward

    @torch.no_grad()
    def velocity(self, x_bchw: Tensor, sigma_b: Tensor, condition: Condition) -> Tensor:
        """The predicted eps - x0 of the target panel, of x's shape, dtype and device."""
        inputs = network_inputs(self.spec, x_bchw, sigma_b, condition)
        pair = self.forward(inputs)
        return pair[..., : x_bchw.shape[3]].to(device=x_bchw.device, dtype=x_bchw.dtype)
