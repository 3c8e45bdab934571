"""Calibration batches and the one place that knows how each network of the family is called.

Shape suffixes: b batch, c latent channels, h and w latent rows and columns.
Flow convention: x_sigma = (1 - sigma) * x0 + sigma * eps, velocity = eps - x0, timestep = 1000 * sigma.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from teachers.base import Condition

Batch = tuple[Tensor, Condition]  # (x0_bchw, what the network is told)
Watch = Callable[[str, int], Callable[[], None]]  # (what begins, its forwards) -> to be called after each of them


def unwatched(label: str, forwards: int) -> Callable[[], None]:
    """For networks whose forwards take no time worth telling."""
    return lambda: None


@dataclass(frozen=True)
class Noised:
    """A batch with its noise drawn, so that every network is asked the same question.

    paired is True where the teacher itself takes (target | condition), as DreamLite does: then every network is asked
    with pairs.
    """

    x_bchw: Tensor
    sigma_b: Tensor
    velocity_bchw: Tensor  # eps - x0
    condition: Condition
    paired: bool = False


def noised(batches: Iterable[Batch], seed: int, paired: bool = False) -> list[Noised]:
    """Draws noise and levels for each batch. Levels are stratified in (0, 1], so that few samples cover them all."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for x0_bchw, condition in batches:
        count = x0_bchw.shape[0]
        cell_b = torch.randperm(count, generator=generator)
        sigma_b = ((cell_b + 1 - torch.rand(count, generator=generator)) / count).to(x0_bchw)
        eps_bchw = torch.randn(x0_bchw.shape, generator=generator).to(x0_bchw)
        sigma_b111 = sigma_b[:, None, None, None]
        x_bchw = (1 - sigma_b111) * x0_bchw + sigma_b111 * eps_bchw
        drawn.append(Noised(x_bchw, sigma_b, eps_bchw - x0_bchw, condition, paired))
    return drawn


def rows_of(batch: Noised, rows: slice) -> Noised:
    """Some samples of a batch."""
    parts = batch.x_bchw[rows], batch.sigma_b[rows], batch.velocity_bchw[rows], batch.condition[rows]
    return Noised(*parts, batch.paired)


def predict(unet: nn.Module, batch: Noised, pair: bool = False) -> Tensor:
    """The network's velocity for the target, in the batch's shape.

    pair False gives it the latent alone, as most teachers take it. pair True, or a paired batch, gives it
    (target | condition) of double width, the condition panel being zeros unless the batch edits a source, and reads the
    left half of the answer.
    """
    output_bchw = unet(**call_arguments(unet, batch, pair))[0]
    return output_bchw[..., : batch.x_bchw.shape[3]] if pair or batch.paired else output_bchw


def call_arguments(unet: nn.Module, batch: Noised, pair: bool = False) -> dict[str, Any]:
    """What a U-Net's forward is called with, by its config."""
    sample_bchw = batch.x_bchw
    if pair or batch.paired:
        source = batch.condition.source_bchw
        sample_bchw = torch.cat([sample_bchw, torch.zeros_like(sample_bchw) if source is None else source], dim=3)
    return {
        "sample": sample_bchw,
        "timestep": 1000 * batch.sigma_b,
        "encoder_hidden_states": batch.condition.tokens_btd,
        "encoder_attention_mask": batch.condition.mask_bt,
        "added_cond_kwargs": _added(unet.config, batch),
        "return_dict": False,
    }


def _added(config: Any, batch: Noised) -> dict[str, Tensor] | None:
    kind = config.addition_embed_type
    if kind is None:
        return None
    condition, count = batch.condition, batch.x_bchw.shape[0]
    size_b2 = condition.size_b2
    if size_b2 is None:
        # 8 pixels a latent cell, the ratio of every VAE that this toolkit meets.
        size_b2 = torch.tensor([batch.x_bchw.shape[3], batch.x_bchw.shape[2]]).repeat(count, 1) * 8.0
    if kind == "time":
        return {"time_ids": size_b2}
    if condition.pooled_bd is None:
        raise ValueError("this network reads a pooled text embedding, and the calibration batches have none")
    added = config.projection_class_embeddings_input_dim - condition.pooled_bd.shape[1]
    if added // config.addition_time_embed_dim == 6:  # SDXL: original (h, w), crop (top, left), target (h, w)
        height_width_b2 = size_b2.flip(1)
        size_b2 = torch.cat([height_width_b2, torch.zeros_like(height_width_b2), height_width_b2], dim=1)
    return {"text_embeds": condition.pooled_bd, "time_ids": size_b2}


@torch.no_grad()
def predictions(unet: nn.Module, batches: Sequence[Noised], pair: bool = False) -> list[Tensor]:
    """The velocities of all batches, without gradients."""
    return [predict(unet, batch, pair) for batch in batches]


def velocity_mse(unet: nn.Module, batches: Sequence[Noised], reference: Sequence[Tensor], pair: bool = False) -> float:
    """Mean squared difference between a network's velocities and those of its teacher."""
    gaps = [
        (ours.double() - theirs.double()).square().mean()
        for ours, theirs in zip(predictions(unet, batches, pair), reference, strict=True)
    ]
    return float(torch.stack(gaps).mean())


@contextmanager
def tapped(modules: dict[str, nn.Module], keep_input: bool = True) -> Iterator[dict[str, list[Tensor]]]:
    """While open, collects what goes into (or comes out of) each module, one tensor a call, detached."""
    seen: dict[str, list[Tensor]] = {name: [] for name in modules}

    def listener(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            seen[name].append((args[0] if keep_input else output).detach())

        return hook

    handles = [module.register_forward_hook(listener(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
