"""One loadable folder: denoiser, autoencoder, text encoder, tokenizer, scheduler and how to sample from them.

Layout is diffusers': `unet/ vae/ text_encoder/ tokenizer/ scheduler/`, and `sampling.json`.
Shape suffixes: b batch, t text tokens, d text width, c channels, h and w rows and columns.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, DreamLiteUNetModel, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from students.unet import load_unet, velocity_model
from teachers.base import Condition, VelocityModel

PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")


@dataclass(frozen=True)
class SamplingDefaults:
    """How a checkpoint wants to be sampled. `rungs` (falling, without the final 0) replaces `steps` and `shift`."""

    steps: int = 28
    guidance_text: float = 1.5
    guidance_edit_text: float = 1.5
    guidance_image: float = 1.0
    shift: float = 3.0
    rungs: tuple[float, ...] | None = None
    stochastic: bool = False

    @property
    def guided(self) -> bool:
        """Whether more than one branch has to be computed."""
        return (self.guidance_text, self.guidance_edit_text, self.guidance_image) != (1.0, 1.0, 1.0)

    @classmethod
    def load(cls, path: Path) -> SamplingDefaults:
        values = json.loads(path.read_text())
        if values.get("rungs") is not None:
            values["rungs"] = tuple(values["rungs"])
        return cls(**values)


def to_tensor(images_bhwc: Tensor | np.ndarray) -> Tensor:
    """uint8 pictures (b, h, w, 3) to float (b, 3, h, w) in [-1, 1]."""
    return torch.as_tensor(images_bhwc).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(x_bchw: Tensor) -> np.ndarray:
    """Float pictures (b, 3, h, w) in [-1, 1] to uint8 (b, h, w, 3); out-of-range values are clipped."""
    scaled = ((x_bchw.float().clamp(-1, 1) + 1) * 127.5).round()
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


class DiffusionSystem:
    """A denoiser with everything around it; `denoiser` wraps the U-Net in the velocity protocol."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderTiny,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerFast,
        scheduler: FlowMatchEulerDiscreteScheduler | None = None,
        sampling: SamplingDefaults | None = None,
    ) -> None:
        self.unet = unet
        # channels last halves the time of the autoencoder's full-resolution convolutions on a CPU
        self.vae = vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.text_encoder = text_encoder.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.sampling = sampling or SamplingDefaults()
        self.scheduler = scheduler or FlowMatchEulerDiscreteScheduler(shift=self.sampling.shift)
        self.denoiser: VelocityModel = velocity_model(unet)

    # ---- files ----------------------------------------------------------------------------------------------------
    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> DiffusionSystem:
        """Reads a folder; raises FileNotFoundError naming the missing part. Weights are safetensors only."""
        folder = Path(folder)
        missing = [part for part in ("unet", *PARTS) if not (folder / part).is_dir()]
        if missing:
            raise FileNotFoundError(f"{folder} is no checkpoint: it has no {', '.join(missing)}")
        system = cls(
            load_unet(folder),
            AutoencoderTiny.from_pretrained(folder / "vae", use_safetensors=True),
            CLIPTextModel.from_pretrained(folder / "text_encoder", use_safetensors=True, dtype=torch.float32),
            PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
            FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
            SamplingDefaults.load(folder / "sampling.json"),
        )
        return system.to(device)

    def save(self, folder: Path | str) -> None:
        """Writes all parts; existing files of the same names are replaced.

        The denoiser's and the text encoder's weights are stored in bf16, as checkpoints of this family are: half the
        bytes, and what a later stage reads is the same whether the artefact was made here or shipped. The autoencoder
        keeps fp32: an exact verifier reads what it draws.
        """
        folder = Path(folder)
        copy.deepcopy(self.unet).to(torch.bfloat16).save_pretrained(folder / "unet")
        self.vae.save_pretrained(folder / "vae")
        copy.deepcopy(self.text_encoder).to(torch.bfloat16).save_pretrained(folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")
        self.scheduler.save_pretrained(folder / "scheduler")
        (folder / "sampling.json").write_text(json.dumps(asdict(self.sampling), indent=2) + "\n")

    def with_unet(self, unet: UNet2DConditionModel, sampling: SamplingDefaults | None = None) -> DiffusionSystem:
        """The same surroundings with another denoiser."""
        return DiffusionSystem(
            unet, self.vae, self.text_encoder, self.tokenizer, self.scheduler, sampling or self.sampling
        )

    def with_vae(self, vae: torch.nn.Module) -> DiffusionSystem:
        """The same around another autoencoder: anything that encodes and decodes as AutoencoderTiny does."""
        return DiffusionSystem(
            self.unet,
            vae,
            self.text_encoder,
            self.tokenizer,
            self.scheduler,
            self.sampling,
        )

    def to(self, device: torch.device | str) -> DiffusionSystem:
        """Moves every network; returns itself."""
        for module in (self.unet, self.vae, self.text_encoder):
            module.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.vae.parameters()).device

    @property
    def edits(self) -> bool:
        """Whether the denoiser takes a source picture."""
        return isinstance(self.unet, DreamLiteUNetModel)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns) of one picture's latent."""
        channels = int(self.vae.config.latent_channels)
        side = int(self.unet.config.sample_size)
        return channels, side, side

    @property
    def image_px(self) -> int:
        """Side of the square pictures this system makes."""
        return self.latent_shape[1] * 2 ** (len(self.vae.config.encoder_block_out_channels) - 1)

    # ---- text and pictures ----------------------------------------------------------------------------------------
    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids, (b, t), padded to the encoder's fixed length; longer texts are cut."""
        length = self.text_encoder.config.max_position_embeddings
        batch = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return batch.input_ids

    @torch.no_grad()
    def encode_ids(self, ids_bt: Tensor) -> Condition:
        """Token features and pooled text of token ids; the size is this system's own."""
        output = self.text_encoder(input_ids=ids_bt.to(self.device))
        size_b2 = torch.full((len(ids_bt), 2), float(self.image_px), device=self.device)
        return Condition(output.last_hidden_state, pooled_bd=output.pooler_output, size_b2=size_b2)

    def encode_text(self, texts: Sequence[str]) -> Condition:
        """The condition of prompts, without a source."""
        return self.encode_ids(self.tokenize(texts))

    @torch.no_grad()
    def encode_image(self, x_bchw: Tensor) -> Tensor:
        """Pictures (b, 3, h, w) in [-1, 1] to latents (b, c, h/8, w/8); deterministic."""
        return self.vae.encode(x_bchw.to(self.device, memory_format=torch.channels_last)).latents.contiguous()

    def decode(self, z_bchw: Tensor) -> Tensor:
        """Latents to pictures in about [-1, 1]; gradients flow through."""
        return self.vae.decode(z_bchw.to(next(self.vae.parameters()).dtype)).sample
