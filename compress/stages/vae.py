"""Trains the autoencoder: AutoencoderTiny whose decoder snaps noisy latents onto clean shapes.

An exact verifier fails on any blur or leftover of noise, so the decoder decides what score a denoiser can reach.
Latents are held near unit variance and disturbed by noise of a random strength before they are decoded; the decoder
then removes whatever error of that size a small denoiser leaves.

Shape suffixes: b batch, c channels, h and w rows and columns.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from compress.config.teacher import VaeConfig
from compress.data.scenes.captions import sample_t2i
from compress.data.scenes.edits import sample_edit
from compress.data.scenes.verifier import judge_t2i, read
from compress.data.scenes.world import BACKGROUNDS, Scene, choose, draw_things, looks, render
from compress.stages.base import StepResult, TrainingStage, fit
from compress.stages.context import Progress, StageContext, StageResult
from students.system import to_pixels, to_tensor

UNIT_VARIANCE_WEIGHT = 0.05
OBJECT_WEIGHT = 2.0  # extra weight of pixels that are not background: shapes are what the verifier reads
CROWD = 10  # things in a crowded training picture


EVERY_LOOK = looks(held_out=False) + looks(held_out=True)


def draw_scene(rng: np.random.Generator) -> Scene:
    """A picture to reconstruct: half like the world's own, half crowded, which shows many more shapes a picture.

    Crowds show every colour-shape pair, those held out from the denoisers too: an autoencoder has to carry whatever is
    drawn. One that was trained without them lost 29 % of the held-out pictures in its own round trip.
    """
    if rng.random() < 0.5:
        return sample_t2i(rng).scene if rng.random() < 0.5 else sample_edit(rng).target
    pairs = [choose(rng, EVERY_LOOK) for _ in range(CROWD)]
    return Scene(draw_things(rng, pairs), choose(rng, BACKGROUNDS))


def build(config: VaeConfig) -> AutoencoderTiny:
    """An untrained autoencoder of the configured size: (b, 3, 64, 64) in [-1, 1] <-> (b, c, 8, 8)."""
    return AutoencoderTiny(
        encoder_block_out_channels=config.channels,
        decoder_block_out_channels=config.channels,
        num_encoder_blocks=config.encoder_blocks,
        num_decoder_blocks=config.decoder_blocks,
        latent_channels=config.latent_channels,
    )


class VaeStage(TrainingStage):
    """Pixel L1 + L2 through noisy latents, and a pull of the latents towards zero mean and unit variance."""

    def __init__(self, config: VaeConfig, progress: Progress) -> None:
        super().__init__(config, progress)
        self.config: VaeConfig = config
        # channels last halves the time of these full-resolution convolutions on a CPU
        self.trained = build(config).to(memory_format=torch.channels_last)
        self.start_averaging()
        rng = np.random.default_rng([config.seed, 1])
        self._pool_bhwc = torch.from_numpy(render([draw_scene(rng) for _ in range(config.pool_images)]))

    def step(self, update: int, generator: torch.Generator) -> StepResult:
        rows = torch.randint(len(self._pool_bhwc), (self.config.batch_size,), generator=generator)
        x_bchw = to_tensor(self._pool_bhwc[rows]).to(self.device, memory_format=torch.channels_last)
        strength = torch.rand(len(rows), 1, 1, 1, generator=generator).to(self.device) * self.config.latent_noise
        z_bchw = self.trained.encode(x_bchw).latents
        noise = torch.randn(z_bchw.shape, generator=generator).to(self.device)
        decoded = self.trained.decode(z_bchw + strength * noise).sample.float()
        weight_b1hw = 1 + OBJECT_WEIGHT * (x_bchw != x_bchw[..., :1, :1]).any(1, keepdim=True)
        l1 = (weight_b1hw * (decoded - x_bchw).abs()).mean()
        l2 = (weight_b1hw * (decoded - x_bchw) ** 2).mean()
        unit = moments_penalty(z_bchw.float())
        return StepResult(l1 + l2 + UNIT_VARIANCE_WEIGHT * unit, {"l1": l1.detach(), "unit_variance": unit.detach()})

    def validate_now(self, update: int) -> dict[str, float]:
        if update % self.config.validate_every and update != self.config.steps:
            return {}
        figures = round_trip(self.averaged, self.config.validate_images, seed=7, noise=0.0)
        noisy = round_trip(self.averaged, self.config.validate_images, seed=7, noise=0.3)
        return {"verified": figures, "verified_noisy": noisy}


def moments_penalty(z_bchw: Tensor) -> Tensor:
    """Squared distance of each channel's mean from 0 and log variance from 0, averaged over channels; a scalar."""
    flat = z_bchw.transpose(0, 1).flatten(1)
    return (flat.mean(1) ** 2 + flat.var(1).clamp_min(1e-6).log() ** 2).mean()


@torch.no_grad()
def round_trip(vae: AutoencoderTiny, images: int, seed: int, noise: float, held_out: bool = False) -> float:
    """Share of captioned scenes that the verifier still accepts after encode, noise of this std, decode."""
    rng = np.random.default_rng([seed, 2])
    samples = [sample_t2i(rng, held_out) for _ in range(images)]
    generator = torch.Generator().manual_seed(seed)
    device = next(vae.parameters()).device
    accepted = 0
    for start in range(0, images, 100):
        part = samples[start : start + 100]
        x_bchw = to_tensor(torch.from_numpy(render([sample.scene for sample in part]))).to(device)
        z_bchw = vae.encode(x_bchw).latents
        z_bchw = z_bchw + noise * torch.randn(z_bchw.shape, generator=generator).to(device)
        readings = read(to_pixels(vae.decode(z_bchw).sample))
        accepted += sum(judge_t2i(r, s.prompt).ok for r, s in zip(readings, part, strict=True))
    return accepted / images


def run(config: VaeConfig, ctx: StageContext) -> StageResult:
    """Trains the autoencoder and writes `vae/`."""
    torch.manual_seed(config.seed)
    stage = fit(VaeStage(config, ctx.progress), ctx, "autoencoder")
    vae = stage.averaged.eval()
    vae.save_pretrained(ctx.out / "vae")
    metrics = {
        "verified_round_trip": round_trip(vae, 2000, seed=11, noise=0.0),
        "verified_round_trip_noise_0.3": round_trip(vae, 2000, seed=11, noise=0.3),
        "verified_round_trip_held_out": round_trip(vae, 500, seed=11, noise=0.3, held_out=True),
        "parameters_m": sum(p.numel() for p in vae.parameters()) / 1e6,
    }
    return StageResult(metrics=metrics, curves=stage.curves, extra={}, spec=dict(vae.config))
