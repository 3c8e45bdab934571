"""Pictures from a system: prompts (and sources) in, pixels out; the one place that samples for people and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from compress.diffusion.guidance import TaskGuidance, task_guidance
from compress.diffusion.sampler import sample
from compress.diffusion.schedule import sigmas
from students.system import DiffusionSystem, SamplingDefaults
from teachers.base import Condition, VelocityModel


def levels(sampling: SamplingDefaults) -> list[float]:
    """The noise levels a checkpoint wants to walk, ending in 0."""
    return [*sampling.rungs, 0.0] if sampling.rungs else sigmas(sampling.steps, sampling.shift)


def guidance_of(sampling: SamplingDefaults, null: Condition) -> TaskGuidance | None:
    """The guidance a checkpoint wants; None where one plain forward a step is meant."""
    if not sampling.guided:
        return None
    return task_guidance(sampling.guidance_text, sampling.guidance_edit_text, sampling.guidance_image, null)


def draw_noise(shape: tuple[int, ...], seed: int, indices: Sequence[int]) -> Tensor:
    """Starting noise, (len(indices), *shape): each picture's own stream, whatever batch it is made in."""
    rows = []
    for index in indices:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        rows.append(torch.randn(shape, generator=generator))
    return torch.stack(rows)


@torch.no_grad()
def sample_latents(
    system: DiffusionSystem,
    condition: Condition,
    noise_bchw: Tensor,
    sampling: SamplingDefaults,
    denoiser: VelocityModel | None = None,
    seed: int = 0,
) -> Tensor:
    """Latents for a condition from given noise, by the checkpoint's own schedule and guidance."""
    return sample(
        denoiser or system.denoiser,
        noise_bchw.to(system.device),
        condition,
        levels(sampling),
        guidance_of(sampling, system.encode_text([""])),
        stochastic=sampling.stochastic,
        generator=torch.Generator().manual_seed(seed),
    )


@torch.no_grad()
def generate(
    system: DiffusionSystem,
    prompts: Sequence[str],
    sources_bchw: Tensor | None = None,
    *,
    sampling: SamplingDefaults | None = None,
    denoiser: VelocityModel | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> Tensor:
    """Pictures (b, 3, h, w) in [-1, 1] for tagged prompts; with `sources_bchw` (b, 3, h, w) they are edits of those.

    `denoiser` stands in for the U-Net: a quantized simulation, an ONNX session, the HTP emulator.
    """
    sampling = sampling or system.sampling
    pictures = []
    for start in range(0, len(prompts), batch_size):
        stop = min(start + batch_size, len(prompts))
        condition = system.encode_text(prompts[start:stop])
        if sources_bchw is not None:
            condition = replace(condition, source_bchw=system.encode_image(sources_bchw[start:stop]))
        noise_bchw = draw_noise(system.latent_shape, seed, range(start, stop))
        z_bchw = sample_latents(system, condition, noise_bchw, sampling, denoiser, seed=seed + start)
        pictures.append(system.decode(z_bchw).float().cpu())
    return torch.cat(pictures)
