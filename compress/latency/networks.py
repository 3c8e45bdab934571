"""The operations of the networks whose latency on Snapdragons is public, to fit and to judge the roofline with."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from compress.operations import Op, attention, convolution, depthwise, group_norm, norm, operations, pointwise
from students.presets import sd15_full, sd21_full

LATENT = 64  # of a 512 px picture
TOKENS = 77


def unet(version: str) -> Iterator[Op]:
    """One forward on a 512 px latent; classifier-free guidance would take two."""
    spec = {"1.5": sd15_full, "2.1": sd21_full}[version]()
    return operations(spec, LATENT, LATENT, TOKENS)


def text_encoder(layers: int, c: int, heads: int) -> Iterator[Op]:
    """A CLIP text transformer: SD 1.5's has 12 layers of 768, SD 2.1's 23 of 1024. Embeddings are looked up."""
    for _ in range(layers):
        yield norm(c, TOKENS)
        yield from (convolution(c, c, TOKENS),) * 4
        yield from attention(TOKENS, TOKENS, heads, c // heads)
        yield norm(c, TOKENS)
        yield convolution(c, 4 * c, TOKENS)
        yield pointwise(4 * c, TOKENS)
        yield convolution(4 * c, c, TOKENS)
        yield from (pointwise(c, TOKENS, 2),) * 2
    yield norm(c, TOKENS)


def vae_decoder() -> Iterator[Op]:
    """Stable Diffusion's AutoencoderKL from a 64 x 64 latent to 512 px (49.5 M parameters)."""
    p, c = LATENT * LATENT, 512
    yield convolution(4, 4, p)
    yield convolution(4, c, p, kernel=3)
    yield from _vae_block(c, c, p)
    yield group_norm(c, p)
    yield from (convolution(c, c, p),) * 4
    yield from attention(p, p, 1, c)
    yield from _vae_block(c, c, p)
    for stage, wide in enumerate((512, 512, 256, 128)):
        for _ in range(3):
            yield from _vae_block(c, wide, p)
            c = wide
        if stage < 3:
            p *= 4
            yield pointwise(c, p)
            yield convolution(c, c, p, kernel=3)
    yield group_norm(c, p)
    yield pointwise(c, p)
    yield convolution(c, 3, p, kernel=3)


def _vae_block(c_in: int, c_out: int, p: int) -> Iterator[Op]:
    for come in (c_in, c_out):
        yield group_norm(come, p)
        yield pointwise(come, p)
        yield convolution(come, c_out, p, kernel=3)
    if c_in != c_out:
        yield convolution(c_in, c_out, p)
    yield pointwise(c_out, p, 2)


def convnext(depths: tuple[int, ...], widths: tuple[int, ...]) -> Iterator[Op]:
    """ConvNeXt (arXiv 2201.03545) at 224 px, with 7x7 depthwise convolutions: tiny (28.6 M) or base (88.6 M)."""
    side = 56
    yield convolution(3, widths[0], side * side, kernel=4, p_in=224 * 224)
    yield norm(widths[0], side * side)
    for depth, c in zip(depths, widths, strict=True):
        p = side * side
        for _ in range(depth):
            yield depthwise(c, p, kernel=7)
            yield norm(c, p)
            yield convolution(c, 4 * c, p)
            yield pointwise(4 * c, p)
            yield convolution(4 * c, c, p)
            yield from (pointwise(c, p, 2),) * 2
        side //= 2
        for wide in (b for a, b in pairwise(widths) if a == c):
            yield norm(c, p)
            yield convolution(c, wide, side * side, kernel=2, p_in=p)
    yield norm(widths[-1], 1)
    yield convolution(widths[-1], 1000, 1)
