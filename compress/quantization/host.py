"""The line between the network on the HTP and the host: what the host computes, in what shapes, and how it is called.

Shape suffixes: b batch, c latent channels, h and w rows and columns of the latent pair, t text tokens, d width.

The HTP graph starts behind the sinusoids: sin and cos of a timestep of 1000 do not survive 16-bit grids, and cost the
host nothing. It also knows nothing of panels: the host joins (target | source) along the width and crops the answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor

from teachers.base import Condition

INPUT_NAMES = ("sample", "time_sinusoid", "size_sinusoid", "tokens", "text_bias")
OUTPUT_NAME = "velocity"
# What a padded text token's attention scores are lowered by. Weights of e^-30 vanish in 16 bits, and a range of 30
# costs the scores' grid little; the -10,000 that is usual in float would leave it steps of 0.15.
PADDED = -30.0
MAX_PERIOD = 10_000  # of the sinusoids


@dataclass(frozen=True)
class IoSpec:
    """Everything the host needs to call the network; written beside the binary as io_spec.json.

    `latent_chw` is the latent *pair* (channels, rows, 2 * columns), or one panel where the network is no editor (`pair`
    is off). `time_width` and `size_width` are the widths of the sinusoids of 1000 * sigma and of (width_px, height_px)
    or whatever sizes it is told, behind the pooled text if it takes that (`pooled`); a `size_width` of 0 means neither.
    `tokens_td` is (text tokens, text width). With `text_bias` an input more says which tokens are padding.
    """

    latent_chw: tuple[int, int, int]
    time_width: int
    size_width: int
    tokens_td: tuple[int, int]
    out_channels: int
    flip_sin_to_cos: bool
    freq_shift: float
    text_bias: bool = False
    pair: bool = True
    pooled: bool = False

    @classmethod
    def of_unet(
        cls, config: dict, latent_hw: tuple[int, int], tokens: int, text_bias: bool = False, pair: bool = True
    ) -> IoSpec:
        """From a U-Net's config, the (rows, columns) of one latent panel and the number of text tokens."""
        rows, columns = latent_hw
        added = config["projection_class_embeddings_input_dim"] if config["addition_embed_type"] else 0
        return cls(
            latent_chw=(config["in_channels"], rows, 2 * columns if pair else columns),
            time_width=config["block_out_channels"][0],
            size_width=added,
            tokens_td=(tokens, config["encoder_hid_dim"] or config["cross_attention_dim"]),
            out_channels=config["out_channels"],
            flip_sin_to_cos=config["flip_sin_to_cos"],
            freq_shift=config["freq_shift"],
            text_bias=text_bias,
            pair=pair,
            pooled=config["addition_embed_type"] == "text_time",
        )

    def shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        """Input name -> shape, in the network's order."""
        every = {
            "sample": (batch, *self.latent_chw),
            "time_sinusoid": (batch, self.time_width),
            "size_sinusoid": (batch, self.size_width),
            "tokens": (batch, *self.tokens_td),
            "text_bias": (batch, 1, self.tokens_td[0]),
        }
        absent = {"size_sinusoid": not self.size_width, "text_bias": not self.text_bias}
        return {name: shape for name, shape in every.items() if not absent.get(name)}

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
            "host": self.host_recipe(),
        }
        path.write_text(json.dumps(described, indent=2) + "\n")

    def host_recipe(self) -> dict[str, Any]:
        """How the host makes the inputs that no other network gives it, in words and with this network's constants."""
        order = ["cos", "sin"] if self.flip_sin_to_cos else ["sin", "cos"]
        recipe: dict[str, Any] = {
            "sinusoid": {
                "formula": "angle_k = value * max_period ** (-k / (width / 2 - freq_shift)), k = 0 .. width / 2 - 1; "
                f"first every {order[0]}(angle_k), then every {order[1]}(angle_k)",
                "order": order,
                "max_period": MAX_PERIOD,
                "freq_shift": self.freq_shift,
            },
            "time_sinusoid": {"values": ["1000 * sigma"], "width": self.time_width},
        }
        if self.size_width and not self.pooled:
            recipe["size_sinusoid"] = {"values": ["width_px", "height_px"], "width": self.size_width // 2}
        if self.text_bias:
            recipe["text_bias"] = {"text": 0.0, "padding": PADDED}
        return recipe

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
            text_bias=fields.get("text_bias", False),
            pair=fields.get("pair", True),
            pooled=fields.get("pooled", False),
        )


_MEANING = {
    "sample": "latent pair: noisy target left, clean source right (zeros to generate)",
    "time_sinusoid": "sinusoidal embedding of the timestep 1000 * sigma",
    "size_sinusoid": "sinusoidal embeddings of the target's width and height in pixels, joined",
    "tokens": "text encoder's last hidden states",
    "text_bias": f"0 for a text token, {PADDED:g} for padding",
}


class Inputs(Protocol):
    """What one call of a graph takes, batch-first."""

    def tensors(self) -> tuple[Tensor, ...]:
        """In the graph's order."""
        ...

    def named(self) -> dict[str, Tensor]:
        """By the graph's input names."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> Inputs: ...


@dataclass(frozen=True)
class NetworkInputs:
    """What one call of the network takes, batch-first, in the network's order."""

    sample_bchw: Tensor
    time_sinusoid_bd: Tensor
    size_sinusoid_bd: Tensor | None
    tokens_btd: Tensor
    text_bias_b1t: Tensor | None = None

    def named(self) -> dict[str, Tensor]:
        """Input name -> tensor, of those that the network takes."""
        every = (self.sample_bchw, self.time_sinusoid_bd, self.size_sinusoid_bd, self.tokens_btd, self.text_bias_b1t)
        return {name: value for name, value in zip(INPUT_NAMES, every, strict=True) if value is not None}

    def tensors(self) -> tuple[Tensor, ...]:
        """Those that the network takes, in its order."""
        return tuple(self.named().values())

    def __len__(self) -> int:
        return self.sample_bchw.shape[0]

    def __getitem__(self, rows: slice | Tensor | Sequence[int]) -> NetworkInputs:
        return NetworkInputs.of({name: tensor[rows] for name, tensor in self.named().items()})

    @staticmethod
    def of(named: Mapping[str, Tensor]) -> NetworkInputs:
        """From tensors by input name, of which other names are ignored."""
        return NetworkInputs(*(named.get(name) for name in INPUT_NAMES))  # type: ignore[arg-type]

    @staticmethod
    def cat(parts: Sequence[NetworkInputs]) -> NetworkInputs:
        every = [part.named() for part in parts]
        return NetworkInputs.of({name: torch.cat([part[name] for part in every]) for name in every[0]})


def network_inputs(spec: IoSpec, x_bchw: Tensor, sigma_b: Tensor, condition: Condition) -> NetworkInputs:
    """The host's share of one call, in float32 on the CPU. x_bchw is one panel; sigma_b in (0, 1]."""
    if spec.size_width and condition.size_b2 is None:
        raise ValueError("the network is told the target's size in pixels, but the condition has none")
    padded = condition.mask_bt is not None and bool((condition.mask_bt == 0).any())
    if padded and not spec.text_bias:
        raise ValueError("this network attends to every text token; quantize it with text_bias to give it padding")
    if not spec.pair and bool(condition.edits_b.any()):
        raise ValueError("this network has no place for a source: it cannot edit")
    x_bchw = x_bchw.detach().float().cpu()
    source = condition.source_bchw
    source_bchw = torch.zeros_like(x_bchw) if source is None else source.detach().float().cpu()
    return NetworkInputs(
        torch.cat([x_bchw, source_bchw], dim=3) if spec.pair else x_bchw,
        sinusoid(spec, 1000.0 * sigma_b, spec.time_width),
        size_sinusoid(spec, condition) if spec.size_width else None,
        condition.tokens_btd.detach().float().cpu(),
        text_bias(condition) if spec.text_bias else None,
    )


def sinusoid(spec: IoSpec, values: Tensor, width: int) -> Tensor:
    """The sinusoidal embedding of every value, (n, width)."""
    flat = values.detach().float().cpu().flatten()
    order, shift = spec.flip_sin_to_cos, spec.freq_shift
    return get_timestep_embedding(flat, width, order, downscale_freq_shift=shift, max_period=MAX_PERIOD)


def size_sinusoid(spec: IoSpec, condition: Condition) -> Tensor:
    """What the network is told of the target's size, (b, size_width): pooled text, if it takes any, and sinusoids."""
    assert condition.size_b2 is not None
    rows, sizes = condition.size_b2.shape
    pooled_bd = condition.pooled_bd if spec.pooled else None
    parts = [] if pooled_bd is None else [pooled_bd.detach().float().cpu()]
    width = (spec.size_width - sum(part.shape[1] for part in parts)) // sizes
    return torch.cat([*parts, sinusoid(spec, condition.size_b2, width).reshape(rows, -1)], dim=1)


def text_bias(condition: Condition) -> Tensor:
    """What is added to the attention scores of every text token, (b, 1, t): 0, or PADDED where the mask is 0."""
    mask_bt = condition.mask_bt
    if mask_bt is None:
        return torch.zeros(condition.tokens_btd.shape[0], 1, condition.tokens_btd.shape[1])
    return PADDED * (1.0 - mask_bt.detach().float().cpu())[:, None]


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
