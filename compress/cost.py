"""What a network costs, from its spec alone: parameters, multiply-accumulates, and bytes as the HTP stores them.

Everything runs on PyTorch's meta device: shapes without weights, so SDXL takes as long as a toy (about a second).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from compress.operations import operations
from students.spec import NPU_CHANNELS, StudentSpec


@dataclass(frozen=True)
class Cost:
    """Cost of one network and of one forward pass through it.

    macs counts convolutions, linear layers and the two products of attention, as papers do; norms, activations and
    additions are left out. bytes_padded is the W8 weight file: 8-bit weights with channels rounded up to 32, as HTP
    stores them, and 32-bit biases.
    """

    parameters: int
    macs: int
    bytes_padded: int

    @property
    def parameters_m(self) -> float:
        return self.parameters / 1e6

    @property
    def macs_g(self) -> float:
        return self.macs / 1e9

    @property
    def size_mb(self) -> float:
        return self.bytes_padded / 1e6

    def metrics(self) -> dict[str, float]:
        return {"parameters_m": self.parameters_m, "macs_g": self.macs_g, "size_mb_w8_padded": self.size_mb}


@lru_cache(maxsize=4096)
def cost(spec: StudentSpec, latent_height: int, latent_width: int, tokens: int) -> Cost:
    """Cost of a forward of `spec` for one sample: a latent of height x width (a pair counts its full width) and text
    of `tokens` tokens."""
    unet = skeleton(spec)
    return Cost(
        parameters=parameters(spec),
        macs=_macs(unet, spec, latent_height, latent_width, tokens),
        bytes_padded=padded_bytes(spec),
    )


def counted(spec: StudentSpec, height: int, width: int, tokens: int) -> Cost:
    """What `cost` finds by tracing a network, which takes seconds at full size, by formulas."""
    ops = list(operations(spec, height, width, tokens))
    return Cost(sum(op.weights for op in ops), sum(op.macs for op in ops), sum(op.weight_bytes for op in ops))


@lru_cache(maxsize=4096)
def padded_bytes(spec: StudentSpec) -> int:
    """Bytes of the W8 weights as HTP stores them; no forward is traced."""
    return sum(_padded_bytes(module) for module in skeleton(spec).modules())


@lru_cache(maxsize=4096)
def parameters(spec: StudentSpec) -> int:
    """Number of parameters; no forward is traced."""
    return sum(p.numel() for p in skeleton(spec).parameters())


@lru_cache(maxsize=8)
def skeleton(spec: StudentSpec) -> nn.Module:
    """The network with shapes and no weights, at any size. It is shared by all who ask: do not change it."""
    return empty(spec)


def empty(spec: StudentSpec) -> nn.Module:
    """A network without weights of one's own, to load some into with `load_state_dict(..., assign=True)`."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        return spec.build()


def example_inputs(
    spec: StudentSpec, height: int, width: int, tokens: int, batch: int = 1, device: str = "cpu"
) -> dict[str, Any]:
    """Zeros in the shapes that a U-Net of `spec` takes, as keyword arguments of its forward."""
    text_dim = spec.text_dim or spec.cross_dim
    added: dict[str, torch.Tensor] = {}
    if spec.size_values:
        added["time_ids"] = torch.zeros(batch, spec.size_values, device=device)
    if spec.pooled_dim:
        added["text_embeds"] = torch.zeros(batch, spec.pooled_dim, device=device)
    return {
        "sample": torch.zeros(batch, spec.in_channels, height, width, device=device),
        "timestep": torch.full((batch,), 500.0, device=device),
        "encoder_hidden_states": torch.zeros(batch, tokens, text_dim, device=device),
        "added_cond_kwargs": added or None,
    }


def _macs(unet: nn.Module, spec: StudentSpec, height: int, width: int, tokens: int) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet(**example_inputs(spec, height, width, tokens, device="meta"))
    return counter.get_total_flops() // 2


def _padded_bytes(module: nn.Module) -> int:
    """Bytes of this module's own parameters. A 3x3 convolution was measured to compile to the same size at 300 and 320
    channels (peers.md fact 10), which is why both of a weight's channel axes are rounded up."""
    own = dict(module.named_parameters(recurse=False))
    total = 0
    for name, parameter in own.items():
        shape = list(parameter.shape)
        if name == "bias":
            total += 4 * _round_up(shape[0])
            continue
        shape[0] = _round_up(shape[0])
        depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels
        if len(shape) > 1 and not depthwise:
            shape[1] = _round_up(shape[1])
        count = 1
        for extent in shape:
            count *= extent
        total += count
    return total


def _round_up(channels: int) -> int:
    return -(-channels // NPU_CHANNELS) * NPU_CHANNELS
