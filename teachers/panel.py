"""A generate-only U-Net as a teacher: SDXL's kind, one panel, pooled text and size beside the tokens.

Shape suffixes: b batch, c latent channels, h and w latent rows and columns.
"""

from __future__ import annotations

from diffusers import UNet2DConditionModel
from torch import Tensor

from teachers.base import Condition

TIMESTEPS = 1000.0  # a flow network is told sigma * 1000, as in pretraining


class PanelVelocity:
    """A generate-only U-Net (SDXL's kind): one panel, pooled text beside the tokens."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.unet = unet

    def velocity(self, x_bchw: Tensor, sigma_b: Tensor, condition: Condition) -> Tensor:
        """The predicted eps - x0, (b, c, h, w). A source is refused: this network cannot edit."""
        if condition.source_bchw is not None and bool(condition.source_bchw.any()):
            raise ValueError("this network only generates; give it a condition without a source")
        return self.unet(
            x_bchw,
            sigma_b * TIMESTEPS,
            condition.tokens_btd,
            encoder_attention_mask=condition.mask_bt,
            added_cond_kwargs={"text_embeds": condition.pooled_bd, "time_ids": condition.size_b2},
            return_dict=False,
        )[0]
