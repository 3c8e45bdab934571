"""Every operation of a U-Net from its spec, by formula: what a planner can afford to ask thousands of times.

`compress.cost` traces the real network and is the judge: this file must agree with it exactly for parameters,
multiply-accumulates and padded bytes (tests/test_operations.py), and adds what a trace does not tell: padded MACs and
the activations that an operation reads and writes. Nothing here imports torch.

Legend: c channels; p positions (latent pixels or tokens); q, k queries and keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from students.spec import NONE, NPU_CHANNELS, RESNET, SELF_CROSS, StudentSpec

EXPANSION = 2  # of the separable convolutions of DreamLiteUNetModel
_CACHED = 1 << 16


def padded(channels: int) -> int:
    """Channels as the HTP stores them: the next multiple of 32."""
    return -(-channels // NPU_CHANNELS) * NPU_CHANNELS


@dataclass(frozen=True)
class Op:
    """One operation on one sample.

    weights is the number of parameters; weight_bytes is what W8 takes of them (8-bit weights with channels padded,
    32-bit biases). macs_padded counts with padded channels. elements is how many activations are read and written,
    with padded channels. dynamic says that both operands of the product are activations.
    """

    kind: str
    macs: int = 0
    macs_padded: int = 0
    weights: int = 0
    weight_bytes: int = 0
    elements: int = 0
    dynamic: bool = False


@dataclass(frozen=True, eq=False)
class Part:
    """Operations that are counted together. Equal parts are one object, so sums over them can be remembered."""

    ops: tuple[Op, ...]


def operations(spec: StudentSpec, height: int, width: int, tokens: int) -> Iterator[Op]:
    """All operations of a forward for one sample: a latent of height x width (a pair counts its full width) and text
    of `tokens` tokens."""
    for part, times in parts(spec, height, width, tokens):
        for _ in range(times):
            yield from part.ops


def parts(spec: StudentSpec, height: int, width: int, tokens: int) -> Iterator[tuple[Part, int]]:
    """The same as (part, how many of it). Sides that a stage cannot halve are rounded up, as a convolution of stride 2
    does."""
    sides = [(height, width)]
    for _ in spec.widths[1:]:
        sides.append((-(-sides[-1][0] // 2), -(-sides[-1][1] // 2)))
    p = [rows * columns for rows, columns in sides]
    yield _ends(spec.widths[0], spec.in_channels, spec.out_channels, p[0]), 1
    yield _embeddings(spec.widths[0], spec.added_dim if spec.size_values or spec.pooled_dim else None), 1
    if spec.text_dim is not None:
        yield _projection(spec.text_dim, spec.cross_dim, tokens), 1
    for stage in range(spec.stages):
        yield from _down(spec, stage, p, tokens)
    yield from _middle(spec, p[-1], tokens)
    for stage in reversed(range(spec.stages)):
        yield from _up(spec, stage, p, tokens)


def convolution(c_in: int, c_out: int, p_out: int, kernel: int = 1, p_in: int = 0, bias: bool = True) -> Op:
    """A dense convolution; with kernel 1 also a linear layer on p_out tokens. p_in 0 means as many as p_out."""
    taps, wide_in, wide_out = kernel * kernel, padded(c_in), padded(c_out)
    return Op(
        "linear" if kernel == 1 else "convolution",
        macs=c_in * c_out * taps * p_out,
        macs_padded=wide_in * wide_out * taps * p_out,
        weights=c_in * c_out * taps + bias * c_out,
        weight_bytes=wide_in * wide_out * taps + 4 * bias * wide_out,
        elements=(p_in or p_out) * wide_in + p_out * wide_out,
    )


def depthwise(c: int, p: int, kernel: int = 3) -> Op:
    """A convolution within each channel, without bias. Its padded MACs count 32 input channels for the one that each
    group has: the matrix unit multiplies them all the same."""
    taps, wide = kernel * kernel, padded(c)
    return Op("depthwise", taps * c * p, taps * wide * NPU_CHANNELS * p, taps * c, taps * wide, 2 * p * wide)


def norm(c: int, p: int, bias: bool = True, weights: int = 0, kind: str = "norm") -> Op:
    """A layer or RMS norm, or with kind "group_norm" one over all positions. `weights` is the length of its scale where
    heads share one, otherwise c."""
    scale = weights or c
    return Op(kind, 0, 0, scale * (1 + bias), padded(scale) * (1 + 4 * bias), 2 * p * padded(c))


def group_norm(c: int, p: int) -> Op:
    """A norm whose statistics need the whole tensor."""
    return norm(c, p, kind="group_norm")


def pointwise(c: int, p: int, inputs: int = 1) -> Op:
    """An activation function (one input), a sum or a product (two), a copy."""
    return Op("pointwise", elements=(inputs + 1) * p * padded(c))


def attention(q: int, k: int, heads: int, head_dim: int) -> tuple[Op, ...]:
    """Scores, softmax and mix of all heads; key and value heads that are shared save weights, no products."""
    macs, scores, wide = q * k * heads * head_dim, q * padded(k) * heads, padded(head_dim)
    product = Op("attention", macs, scores * wide, 0, 0, scores + (q + padded(k)) * heads * wide, dynamic=True)
    return product, Op("softmax", elements=2 * scores), product


@lru_cache(_CACHED)
def residual_block(separable: bool, time: int, c_in: int, c_out: int, p: int) -> Part:
    """Norm, SiLU, convolution, time embedding, norm, SiLU, convolution, shortcut."""
    inner = EXPANSION * c_out if separable else c_out

    def convolve(come: int, go: int) -> tuple[Op, ...]:
        if separable:
            return depthwise(come, p), convolution(come, go, p, bias=False)
        return (convolution(come, go, p, kernel=3),)

    first = (group_norm(c_in, p), pointwise(c_in, p), *convolve(c_in, inner))
    middle = (convolution(time, inner, 1), pointwise(inner, p, 2))
    second = (group_norm(inner, p), pointwise(inner, p), *convolve(inner, c_out))
    shortcut = (convolution(c_in, c_out, p),) if c_in != c_out else ()
    return Part((*first, *middle, *second, *shortcut, pointwise(c_out, p, 2)))


@lru_cache(_CACHED)
def transformer_block(
    c: int, heads: int, p: int, tokens: int, c_text: int, own: bool, kv_heads: int | None, qk_norm: bool, ff_mult: int
) -> Part:
    """Self-attention where `own`, cross-attention, GEGLU, each behind a layer norm."""
    head_dim = c // heads
    c_value = (kv_heads or heads) * head_dim

    def attend(k: int, c_key: int) -> Iterator[Op]:
        yield norm(c, p)
        yield convolution(c, c, p, bias=False)
        yield from (convolution(c_key, c_value, k, bias=False),) * 2
        if qk_norm:
            yield norm(c, p, bias=False, weights=head_dim)
            yield norm(c_value, k, bias=False, weights=head_dim)
        yield from attention(p, k, heads, head_dim)
        yield convolution(c, c, p)
        yield pointwise(c, p, 2)

    hidden = ff_mult * c
    gate = (convolution(c, 2 * hidden, p), pointwise(hidden, p), pointwise(hidden, p, 2))
    feed_forward = (norm(c, p), *gate, convolution(hidden, c, p), pointwise(c, p, 2))
    first = tuple(attend(p, c)) if own else (norm(c, p),)  # without self-attention its norm stays
    return Part((*first, *attend(tokens, c_text), *feed_forward))


@lru_cache(_CACHED)
def _frame(c: int, p: int) -> Part:
    """What stands around a stack of transformer blocks."""
    return Part((group_norm(c, p), *(convolution(c, c, p),) * 2, pointwise(c, p, 2)))


@lru_cache(_CACHED)
def _ends(c: int, c_in: int, c_out: int, p: int) -> Part:
    tail = (group_norm(c, p), pointwise(c, p), convolution(c, c_out, p, kernel=3))
    return Part((convolution(c_in, c, p, kernel=3), *tail))


@lru_cache(_CACHED)
def _embeddings(c: int, added: int | None) -> Part:
    time = (convolution(c, 4 * c, 1), convolution(4 * c, 4 * c, 1))
    return Part(time if added is None else (*time, convolution(added, 4 * c, 1), convolution(4 * c, 4 * c, 1)))


@lru_cache(_CACHED)
def _projection(c_text: int, c: int, tokens: int) -> Part:
    return Part((convolution(c_text, c, tokens), norm(c, tokens, bias=False)))


@lru_cache(_CACHED)
def _resample(c: int, p_in: int, p_out: int) -> Part:
    """A 3x3 convolution to fewer positions, or a copy to more and one there."""
    if p_out < p_in:
        return Part((convolution(c, c, p_out, kernel=3, p_in=p_in),))
    return Part((pointwise(c, p_out), convolution(c, c, p_out, kernel=3)))


@lru_cache(_CACHED)
def _join(c: int, p: int) -> Part:
    return Part((pointwise(c, p),))


def _resnet(spec: StudentSpec, c_in: int, c_out: int, p: int) -> Part:
    return residual_block(spec.separable, 4 * spec.widths[0], c_in, c_out, p)


def _transformer(
    spec: StudentSpec, stage: int, kind: str, p: int, tokens: int, depths: Sequence[int]
) -> Iterator[tuple[Part, int]]:
    """The stacks of a stage's layers, `depths` transformer blocks high."""
    c, own = spec.widths[stage], kind == SELF_CROSS
    block = transformer_block(
        c, spec.heads[stage], p, tokens, spec.cross_dim, own, spec.kv_heads, spec.qk_norm, spec.ff_mult
    )
    yield _frame(c, p), len(depths)
    yield block, sum(depths)


def _middle(spec: StudentSpec, p: int, tokens: int) -> Iterator[tuple[Part, int]]:
    last = spec.stages - 1
    if spec.middle != NONE:
        yield _resnet(spec, spec.widths[last], spec.widths[last], p), 1 if spec.middle == RESNET else 2
    if spec.middle == SELF_CROSS:
        yield from _transformer(spec, last, SELF_CROSS, p, tokens, (spec.middle_depth,))


def _down(spec: StudentSpec, stage: int, p: list[int], tokens: int) -> Iterator[tuple[Part, int]]:
    c, kind, layers = spec.widths[stage], spec.down_attention[stage], spec.layers_per_block[stage]
    yield _resnet(spec, spec.widths[max(stage - 1, 0)], c, p[stage]), 1
    if layers > 1:
        yield _resnet(spec, c, c, p[stage]), layers - 1
    if kind != NONE:
        yield from _transformer(spec, stage, kind, p[stage], tokens, spec.depths("down", stage))
    if stage < spec.stages - 1:
        yield _resample(c, p[stage], p[stage + 1]), 1


def _up(spec: StudentSpec, stage: int, p: list[int], tokens: int) -> Iterator[tuple[Part, int]]:
    c, kind, layers = spec.widths[stage], spec.up_attention[stage], spec.layers_per_block[stage] + 1
    for layer in range(layers):
        below = spec.widths[min(stage + 1, spec.stages - 1)] if layer == 0 else c
        skip = spec.widths[max(stage - 1, 0)] if layer == layers - 1 else c
        yield _join(below + skip, p[stage]), 1
        yield _resnet(spec, below + skip, c, p[stage]), 1
    if kind != NONE:
        yield from _transformer(spec, stage, kind, p[stage], tokens, spec.depths("up", stage))
    if stage:
        yield _resample(c, p[stage], p[stage - 1]), 1
