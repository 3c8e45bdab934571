"""The few modules, beside torch.nn's own, that a U-Net is made of once it is written for the HTP.

AIMET quantizes modules, not functions, so that every tensor of the network has to leave a module. Each module here
is one operator of the ONNX file. Axis 0 is always the batch and no shape is written for it, so that a graph traced at
one batch size runs at any.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Add(nn.Module):
    """a + b, broadcasting."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Multiply(nn.Module):
    """a * b, broadcasting."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


class MatMul(nn.Module):
    """a @ b of two activations; on the HTP the second operand has to be signed 16-bit (see `Requantize`)."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.matmul(a, b)


class Concat(nn.Module):
    """Joins its operands along `dim` (not the batch)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, dim=self.dim)


class Reshape(nn.Module):
    """Reshapes every sample to `tail`; the batch axis stays in front."""

    def __init__(self, tail: tuple[int, ...]) -> None:
        super().__init__()
        self.tail = tuple(tail)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.tail)

    def extra_repr(self) -> str:
        return f"tail={self.tail}"


class Permute(nn.Module):
    """Reorders the axes; axis 0, the batch, stays in front."""

    def __init__(self, dims: tuple[int, ...]) -> None:
        super().__init__()
        if dims[0] != 0:
            raise ValueError(f"a permutation has to leave the batch axis in front, got {dims}")
        self.dims = tuple(dims)

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.dims)

    def extra_repr(self) -> str:
        return f"dims={self.dims}"


class ScaleChannels(nn.Module):
    """x * weight, one constant a channel: weight is (1, c, 1) over (b, c, h * w), (1, c, 1, 1) over (b, c, h, w)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class ShiftChannels(nn.Module):
    """x + shift, one constant a channel: shift is (1, c, 1) over (b, c, h * w), (1, c, 1, 1) over (b, c, h, w)."""

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.shift = nn.Parameter(shift, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


class Requantize(nn.Module):
    """Identity in float; in the quantized network its input changes to the grid of its own output quantizer."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class NetworkInput(nn.Module):
    """Identity in float; in the quantized network the place where an input enters its grid, `limits` where known."""

    def __init__(self, limits: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.limits = limits

    def forward(self, x: Tensor) -> Tensor:
        return x


# The three below only live between two passes: they name what torch.export wrote, before it is rewritten for the HTP.


class Attention(nn.Module):
    """Scaled dot product attention over (b, heads, tokens, width), as torch.export sees it; bias (b, 1, 1, keys)."""

    def __init__(self, scale: float | None = None) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=self.scale)


class RepeatInterleave(nn.Module):
    """Repeats every slice along `dim` `repeats` times: how diffusers shares one KV head among the query heads."""

    def __init__(self, repeats: int, dim: int) -> None:
        super().__init__()
        self.repeats = repeats
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.repeats, dim=self.dim)


class Half(nn.Module):
    """The first (index 0) or second (index 1) half along the last axis."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        return x.chunk(2, dim=-1)[self.index]
