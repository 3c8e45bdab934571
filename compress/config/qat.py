"""Quantization-aware distillation: the rounded student trained a little more, through its own rounding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from compress.config.train import TrainConfig
from compress.errors import Problem


@dataclass(frozen=True, kw_only=True)
class QatConfig(TrainConfig):
    """Follows stage quantize: weights and biases learn, in simulation, to answer as the float student does.

    The grids stay those that were calibrated, since the HTP does not clip where the simulation does and ranges that are
    learned would count on it. The calls to learn from are those of `trajectories` generations and as many edits, drawn
    anew. Gradients pass the rounding as if it were not there (straight-through, as in AIMET). `score_images` as in
    stage quantize.
    """

    kind: ClassVar[str] = "qat"
    runner: ClassVar[str] = "compress.stages.qat:run"

    name: str = "qat"
    steps: int = 200
    batch_size: int = 16
    learning_rate: float = 1e-5
    warmup_steps: int = 10
    weight_decay: float = 0.0
    ema_decay: float = 0.0
    precision: str = "fp32"
    compile: bool = field(default=False, metadata={"in_key": False})
    log_every: int = field(default=10, metadata={"in_key": False})
    trajectories: int = 128
    htp_arch: int = 75
    score_images: int | None = None

    def problems(self) -> list[Problem]:
        """Also: full precision, and something to learn from."""
        exact = "Use fp32: a grid of 16 bits is finer than bf16."
        return [
            *super().problems(),
            *self.expect(self.precision == "fp32", "precision", exact),
            *self.expect(self.trajectories > 0, "trajectories", "Record at least 1 generation and 1 edit."),
            *self.expect(self.score_images is None or self.score_images >= 0, "score_images", "Use null, 0 or more."),
        ]
