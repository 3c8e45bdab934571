"""Every rewrite computes what stood there before, and leaves nothing of the pattern it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from compress.errors import UserError
from compress.quantization import ops
from compress.quantization.graph import UNetBehindSinusoids, export_unet, module_of, placeholders, shape_of
from compress.quantization.host import IoSpec
from compress.quantization.lowering import lower
from compress.quantization.passes import ATEN_PASSES, MODULE_PASSES, htp_graph
from compress.quantization.passes.attention import fold_attention
from compress.quantization.passes.geglu import split_geglu
from compress.quantization.passes.group_norm import expand_group_norm, fold_norm_affine
from compress.quantization.passes.noops import drop_noops
from compress.quantization.passes.reshapes import merge_reshapes
from compress.quantization.passes.rms_norm import fuse_rms_norm
from compress.quantization.passes.silu import expand_silu, share_silu
from compress.quantization.passes.text_bias import take_text_bias
from tests.quantization.conftest import random_inputs

SDPA = torch.ops.aten.scaled_dot_product_attention.default


class Gated(nn.Module):
    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.both = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.both(x).chunk(2, dim=-1)
        return value * nn.functional.gelu(gate)


class RootMeanSquare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.to(torch.float32).pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class MultiQuery(nn.Module):
    """Three query heads of width 4 against one key and value head, with or without norms, as diffusers writes it."""

    def __init__(self, norms: bool) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(12, 12), nn.Linear(12, 4, bias=False), nn.Linear(12, 4)
        self.norm_q, self.norm_k = (RootMeanSquare(), RootMeanSquare()) if norms else (None, None)
        if norms:
            self.norm_q.weight = nn.Parameter(torch.randn(4))
            self.norm_k.weight = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x).view(x.shape[0], -1, 3, 4)
        k = self.k(x).view(x.shape[0], -1, 1, 4)
        v = self.v(x).view(x.shape[0], -1, 1, 4)
        if self.norm_q is not None:
            q, k = self.norm_q(q), self.norm_k(k)
        k, v = k.repeat_interleave(3, dim=2), v.repeat_interleave(3, dim=2)
        heads = nn.functional.scaled_dot_product_attention(*(part.permute(0, 2, 1, 3) for part in (q, k, v)))
        return heads.permute(0, 2, 1, 3).flatten(2, 3)


class NormThenLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.GroupNorm(2, 8), nn.Linear(8, 5)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[2:]
        return self.linear(self.norm(x).permute(0, 2, 3, 1).reshape(x.shape[0], rows * columns, 8))


class NormThenSilu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 8)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(self.norm(x))


class SiluTwice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(x) + nn.functional.silu(x)


class Chain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(x.shape[0], -1).reshape(x.shape[0], 3, -1)
        return flat.reshape(x.shape) + x.reshape(x.shape)


class Noops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x.contiguous().to(torch.float32), 0.5, self.training) / 1.0 + x


class ManyHeads(nn.Module):
    """Three heads of width 4, each with its own keys and values, as diffusers' plain processor writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(12, 12, bias=False), nn.Linear(12, 12, bias=False), nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part(x).view(x.shape[0], -1, 3, 4).transpose(1, 2) for part in (self.q, self.k, self.v))
        heads = nn.functional.scaled_dot_product_attention(q, k, v)
        return heads.transpose(1, 2).reshape(x.shape[0], -1, 12)


MAP, LARGE_MAP, TOKENS = (2, 8, 4, 6), (2, 8, 16, 32), (2, 5, 12)
MODULE_CASES = [
    (split_geglu, Gated(), (2, 3, 6), 1, nn.Identity),
    (fold_attention, MultiQuery(norms=True), TOKENS, 1, ops.Attention),
    (fold_attention, MultiQuery(norms=False), TOKENS, 1, ops.Attention),
    (fold_attention, ManyHeads(), TOKENS, 1, ops.Attention),
    (fold_norm_affine, NormThenLinear(), MAP, 1, None),
    (expand_group_norm, NormThenSilu(), MAP, 1, nn.GroupNorm),
    (expand_group_norm, NormThenLinear(), MAP, 1, nn.GroupNorm),
    (share_silu, SiluTwice(), MAP, 1, None),
    (expand_group_norm, NormThenSilu(), LARGE_MAP, 1, nn.GroupNorm),
    (expand_group_norm, NormThenLinear(), LARGE_MAP, 1, nn.GroupNorm),
    (expand_silu, NormThenSilu(), MAP, 1, nn.SiLU),
    (expand_silu, NormThenSilu(), LARGE_MAP, 1, nn.SiLU),
    (expand_silu, SiluTwice(), TOKENS, 2, nn.SiLU),
    (merge_reshapes, Chain(), (2, 6, 4), 4, None),
]


def exported(module: nn.Module, shape: tuple[int, ...]) -> fx.GraphModule:
    return torch.export.export(module.eval(), (torch.zeros(shape),)).module(check_guards=False)


def kinds(graph: fx.GraphModule) -> set[type]:
    return {type(module_of(node)) for node in graph.graph.nodes if node.op == "call_module"}


@pytest.mark.parametrize(
    "rewrite, module, shape, count, gone", MODULE_CASES, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_module_pass_is_exact(
    rewrite: Callable[[fx.GraphModule], int], module: nn.Module, shape: tuple[int, ...], count: int, gone: Any
) -> None:
    traced = exported(module, shape)
    for aten_pass in ATEN_PASSES:
        aten_pass(traced)
    lowered = lower(traced)
    assert rewrite(lowered) == count
    assert gone not in kinds(lowered)
    for batch in (2, 1, 3):  # traced at 2, valid at any
        x = torch.randn(batch, *shape[1:])
        torch.testing.assert_close(lowered(x), module(x), atol=1e-5, rtol=0)
    assert rewrite(lowered) == 0 or rewrite is expand_silu


@pytest.mark.parametrize("shape, dims", [(MAP, 3), (LARGE_MAP, 4)])
def test_large_maps_keep_their_dimensions(shape: tuple[int, ...], dims: int) -> None:
    """What the compiler is slow over (large flat maps) and wrong on (small maps) never reaches it."""
    lowered = lower(exported(NormThenSilu(), shape))
    assert expand_group_norm(lowered) == expand_silu(lowered) == 1
    pointwise = (ops.ScaleChannels, ops.ShiftChannels, nn.Sigmoid, ops.Multiply)
    found = [shape_of(node) for node in lowered.graph.nodes if isinstance(module_of(node), pointwise)]
    assert [len(shape) for shape in found] == [dims] * 4


@pytest.mark.parametrize("rewrite, module", [(drop_noops, Noops()), (fuse_rms_norm, RootMeanSquare())])
def test_an_aten_pass_is_exact(rewrite: Callable[[fx.GraphModule], int], module: nn.Module) -> None:
    traced = exported(module, (2, 4, 6))
    drop_noops(traced) if rewrite is fuse_rms_norm else None
    assert rewrite(traced) > 0
    left = {str(node.target) for node in traced.graph.nodes if node.op == "call_function"}
    assert left == ({"aten.add.Tensor"} if rewrite is drop_noops else {"aten.rms_norm.default"})
    x = torch.randn(2, 4, 6)
    torch.testing.assert_close(traced(x), module(x), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_the_whole_student_stays_the_same_pass_by_pass(unet: Any, spec: IoSpec) -> None:
    spec = replace(spec, latent_chw=(4, 16, 32))  # large maps and small ones
    inputs = random_inputs(spec, 1, seed=3).tensors()
    expected = UNetBehindSinusoids(unet)(*inputs)
    traced = export_unet(unet, spec)
    for aten_pass in ATEN_PASSES:
        assert aten_pass(traced) > 0
        torch.testing.assert_close(traced(*inputs), expected, atol=1e-5, rtol=0)
    lowered = lower(traced)
    for module_pass in MODULE_PASSES:
        assert module_pass(lowered) > 0, module_pass.__name__
        torch.testing.assert_close(lowered(*inputs), expected, atol=1e-5, rtol=0, msg=module_pass.__name__)
    assert not kinds(lowered) & {nn.GroupNorm, nn.SiLU, nn.Identity, ops.Attention, ops.Half, ops.RepeatInterleave}
    one = random_inputs(spec, 1, seed=4)[:1].tensors()
    torch.testing.assert_close(lowered(*one), UNetBehindSinusoids(unet)(*one), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_without_text_padding_there_is_nothing_to_take(unet: Any, spec: IoSpec) -> None:
    bare = replace(spec, text_bias=False)
    inputs = random_inputs(bare, 1, seed=3).tensors()
    assert len(inputs) == 4
    graph = htp_graph(unet, bare)
    torch.testing.assert_close(graph(*inputs), UNetBehindSinusoids(unet)(*inputs), atol=1e-5, rtol=0)
    assert take_text_bias(export_unet(unet, bare)) == 0


@pytest.mark.slow
def test_every_cross_attention_takes_the_text_bias_itself(unet: Any, spec: IoSpec) -> None:
    traced = export_unet(unet, spec)
    crossing = sum(name.endswith("attn2.to_q") for name, _ in unet.named_modules())
    assert take_text_bias(traced) == crossing > 0
    (text_bias,) = [node for node in placeholders(traced) if node.name == "text_bias"]
    (bias,) = text_bias.users
    assert len(bias.users) == crossing and {user.target for user in bias.users} == {SDPA}


def test_a_mask_of_another_making_is_refused() -> None:
    class Causal(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            mask = torch.ones(5, 5).tril().log()[None, None]
            return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)

    traced = exported(Causal(), (2, 3, 5, 4))
    assert take_text_bias(traced) == 0
    with pytest.raises(UserError, match=r"no form|mask of its own"):
        lower(traced)


def test_rewriting_leaves_the_student_itself_alone(unet: Any, spec: IoSpec, graph: fx.GraphModule) -> None:
    assert "get_time_embed" not in unet.__dict__
    assert graph.get_submodule("conv_in").weight.data_ptr() == unet.conv_in.weight.data_ptr()  # shared, not copied


class Cosine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.Softplus())

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_an_unknown_operator_is_named_with_its_place() -> None:
    with pytest.raises(UserError, match=r"inner\.1 \(Softplus\): operator aten\.softplus\.default has no form"):
        lower(exported(Cosine(), (2, 6)))


@pytest.mark.slow
def test_a_reshape_that_mixes_samples_is_refused() -> None:
    class Mixing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(4, 3)

    with pytest.raises(UserError, match="batch axis"):
        lower(exported(Mixing(), (2, 6)))


def test_an_odd_number_of_channels_a_group_is_refused() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.GroupNorm(2, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x)

    with pytest.raises(UserError, match="10 channels in 2 groups is 5 a group"):
        expand_group_norm(lower(exported(Odd(), (2, 10, 4, 4))))
