"""Ridge regression of a network's linear maps in place, on what arrives at them during a forward pass.

Shape suffixes: n samples (pixels or tokens), f features, c channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.pruning.least_squares import ridge_fit


class Refitter:
    """Refits modules of one network by name and notes the relative squared error of each: {tensor: (before, after)}.

    With `pair` only the left half of every map, the target's panel, is fitted; `rows` says how many latent rows the
    tokens of the current transformer come from.
    """

    def __init__(self, modules: dict[str, Any], pair: bool, ridges: Sequence[float]) -> None:
        self.modules, self.pair, self.ridges = modules, pair, ridges
        self.errors: dict[str, tuple[float, float]] = {}
        self.rows = 0

    def pixels(self, x_bchw: Tensor) -> Tensor:
        """Rows of the target panel: (n, c)."""
        if self.pair:
            x_bchw = x_bchw[..., : x_bchw.shape[3] // 2]
        return x_bchw.movedim(1, -1).flatten(0, -2)

    def tokens(self, x_btc: Tensor) -> Tensor:
        if self.pair:
            x_bhwc = x_btc.unflatten(1, (self.rows, -1))
            x_btc = x_bhwc[:, :, : x_bhwc.shape[2] // 2].flatten(1, 2)
        return x_btc.flatten(0, 1)

    def refit(self, names: Sequence[str], phis: list[Tensor], gap_nc: Tensor, wanted_nc: Tensor) -> None:
        """Replaces the weights of the named maps, whose outputs add up, so that their sum comes closest to the gap."""
        modules = [self.modules[name] for name in names]
        weights = [module.weight.flatten(1) for module in modules]
        bias = next((m.bias for m in modules if m.bias is not None), None)
        phi, start = torch.cat(phis, dim=1), torch.cat(weights, dim=1)
        if bias is not None:
            phi = torch.cat([phi, phi.new_ones(len(phi), 1)], dim=1)
            start = torch.cat([start, bias[:, None]], dim=1)
        fitted_cf, before, after = ridge_fit(phi, gap_nc, start, self.ridges)
        for name in names:
            self.note_errors(name, gap_nc, wanted_nc, before, after)
        parts = fitted_cf.split([w.shape[1] for w in weights] + ([1] if bias is not None else []), dim=1)
        for module, part in zip(modules, parts, strict=False):
            module.weight.copy_(part.reshape(module.weight.shape))
        if bias is not None:
            bias.copy_(parts[-1][:, 0])

    def note_errors(self, name: str, gap_nc: Tensor, wanted_nc: Tensor, before: float, after: float) -> None:
        """Errors relative to the whole feature, not to the part of it that this map has to write."""
        share = float(gap_nc.double().square().sum() / wanted_nc.double().square().sum().clamp_min(1e-300))
        for kind in ("weight", "bias"):
            if getattr(self.modules[name], kind) is not None:
                self.errors[f"{name}.{kind}"] = (before * share, after * share)

    def mix(self, name: str, conv: Any, x: Tensor, gap_nc: Tensor, wanted_nc: Tensor) -> Tensor:
        """Refits a convolution by mixing its outputs: its kernels become M times themselves."""
        maps = nn.functional.conv2d(x, conv.weight, None, conv.stride, conv.padding)
        phi = self.pixels(maps)
        ones = phi.new_ones(len(phi), 1)
        bias = conv.bias if conv.bias is not None else conv.weight.new_zeros(conv.out_channels)
        start = torch.cat([torch.eye(conv.out_channels, dtype=phi.dtype, device=phi.device), bias[:, None]], dim=1)
        fitted, before, after = ridge_fit(torch.cat([phi, ones], dim=1), gap_nc, start, self.ridges)
        self.note_errors(name, gap_nc, wanted_nc, before, after)
        conv.weight.copy_(torch.einsum("om,mikl->oikl", fitted[:, :-1], conv.weight))
        if conv.bias is not None:
            conv.bias.copy_(fitted[:, -1])
        return conv.forward(x)  # not conv(x): that would call this listener again
