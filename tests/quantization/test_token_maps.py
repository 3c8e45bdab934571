"""Tokens of large maps keep four dimensions through a transformer, of small ones they do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compress.quantization import ops
from compress.quantization.graph import module_of, shape_of
from compress.quantization.lowering import lower
from compress.quantization.passes import ATEN_PASSES, MODULE_PASSES
from compress.quantization.passes.attention import fold_attention
from compress.quantization.passes.token_maps import keep_token_maps
from tests.quantization.test_passes import Gated, ManyHeads, MultiQuery, exported


class Transformer(nn.Module):
    """Attention to itself and to a gate's values, between two convolutions, as diffusers writes it."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.first, self.attention, self.gated = nn.Conv2d(3, 12, 1), attention, Gated(12)
        self.norm, self.back, self.last = nn.LayerNorm(12), nn.Linear(5, 12), nn.Conv2d(12, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.first(x)
        batch, channels, rows, columns = maps.shape
        tokens = maps.permute(0, 2, 3, 1).reshape(batch, rows * columns, channels)
        tokens = tokens + self.attention(self.norm(tokens))
        tokens = tokens + self.back(self.gated(tokens))
        return self.last(tokens.reshape(batch, rows, columns, channels).permute(0, 3, 1, 2) + maps)


@pytest.mark.parametrize(
    "attention", [MultiQuery(norms=True), MultiQuery(norms=False), ManyHeads()], ids=["normed", "plain", "many"]
)
def test_tokens_of_large_maps_stay_maps(attention: nn.Module) -> None:
    module = Transformer(attention)
    traced = exported(module, (2, 3, 16, 32))
    for aten_pass in ATEN_PASSES:
        aten_pass(traced)
    lowered = lower(traced)
    for rewrite in MODULE_PASSES:
        rewrite(lowered)
    for batch in (2, 1, 3):
        x = torch.randn(batch, 3, 16, 32)
        torch.testing.assert_close(lowered(x), module(x), atol=1e-5, rtol=0)
    assert keep_token_maps(lowered) == 0
    for node in lowered.graph.nodes:
        if isinstance(module_of(node), (nn.Linear, nn.LayerNorm, nn.GELU, ops.Add, ops.Multiply)):
            assert len(shape_of(node)) == 4, node.name


def test_tokens_of_small_maps_stay_in_a_row() -> None:
    lowered = lower(exported(Transformer(ManyHeads()), (2, 3, 4, 6)))
    fold_attention(lowered)
    assert keep_token_maps(lowered) == 0
