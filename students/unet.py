"""The student in the velocity protocol: width concatenation in, the target half out.

Shape suffixes: b batch, c latent channels, h and w latent rows and columns of one panel.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DreamLiteUNetModel, UNet2DConditionModel
from torch import Tensor

from teachers.base import Condition
from teachers.panel import TIMESTEPS, PanelVelocity


class StudentVelocity:
    """DreamLite's in-context layout: [noisy target | condition], zeros as condition where nothing is edited."""

    def __init__(self, unet: DreamLiteUNetModel) -> None:
        self.unet = unet

    def velocity(self, x_bchw: Tensor, sigma_b: Tensor, condition: Condition) -> Tensor:
        """The predicted eps - x0 of the target panel, (b, c, h, w)."""
        source = condition.source_bchw
        pair = torch.cat([x_bchw, torch.zeros_like(x_bchw) if source is None else source.to(x_bchw)], dim=3)
        added = {"time_ids": condition.size_b2}
        if self.unet.config.addition_embed_type == "text_time":  # a student that kept its teacher's size embedding
            added["text_embeds"] = condition.pooled_bd
        output = self.unet(
            pair,
            sigma_b * TIMESTEPS,
            condition.tokens_btd,
            encoder_attention_mask=condition.mask_bt,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return output[..., : x_bchw.shape[3]]


def velocity_model(unet: torch.nn.Module) -> StudentVelocity | PanelVelocity:
    """The wrapper that fits a U-Net's class. Raises TypeError for another class."""
    if isinstance(unet, DreamLiteUNetModel):
        return StudentVelocity(unet)
    if isinstance(unet, UNet2DConditionModel):
        return PanelVelocity(unet)
    raise TypeError(f"no velocity wrapper for {type(unet).__name__}; expected a DreamLite or UNet2DCondition model")


def unet_class(folder: Path | str) -> type[UNet2DConditionModel]:
    """The class that the config under `folder/unet` names. Raises TypeError for one that is no U-Net of ours."""
    name = UNet2DConditionModel.load_config(folder, subfolder="unet")["_class_name"]
    classes = {"DreamLiteUNetModel": DreamLiteUNetModel, "UNet2DConditionModel": UNet2DConditionModel}
    if name not in classes:
        raise TypeError(f"{folder}/unet is a {name}; expected one of {', '.join(classes)}")
    return classes[name]


def load_unet(folder: Path | str) -> UNet2DConditionModel:
    """The U-Net under `folder/unet` in fp32, of the class its config names; weights at rest may be half precision."""
    kind = unet_class(folder)
    return kind.from_pretrained(folder, subfolder="unet", use_safetensors=True, torch_dtype=torch.float32)


def unet_without_weights(folder: Path | str) -> UNet2DConditionModel:
    """The U-Net that `folder/unet/config.json` describes, on the meta device: for who asks what it is, not for running.

    Takes next to no memory, whatever its size.
    """
    kind = unet_class(folder)
    with torch.device("meta"):
        return kind.from_config(kind.load_config(folder, subfolder="unet"))
