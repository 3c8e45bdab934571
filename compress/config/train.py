"""What every training stage's configuration has in common."""

from __future__ import annotations

from dataclasses import dataclass, field

from compress.config.base import StageConfig
from compress.errors import Problem

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(StageConfig):
    """AdamW with linear warm-up and cosine decay, gradient clipping and an exponential moving average of the weights.

    `steps` are optimizer updates of the student; `learning_rate` is the peak; the averaged weights are what is saved
    (`ema_decay` 0 saves the last ones). `precision` is that of matrix products (weights stay fp32); it applies on
    the CPU as well. `compile` runs the trained network through torch.compile on a GPU; on the CPU it was measured to be
    no faster and is left out.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 4e-4
    final_learning_rate_share: float = 0.02
    warmup_steps: int = 100
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    precision: str = "bf16"
    compile: bool = field(default=True, metadata={"in_key": False})
    log_every: int = field(default=25, metadata={"in_key": False})
    checkpoint_every_s: float = field(default=60.0, metadata={"in_key": False})

    def problems(self) -> list[Problem]:
        """Ranges of the optimisation settings."""
        return [
            *self.expect(self.steps > 0, "steps", "Give at least 1 optimizer update."),
            *self.expect(self.batch_size > 0, "batch_size", "Give at least 1 sample a batch."),
            *self.expect(0 < self.learning_rate < 1, "learning_rate", "Use a value such as 4e-4."),
            *self.expect(0 <= self.ema_decay < 1, "ema_decay", "Use 0 (off) or a value below 1 such as 0.998."),
            *self.expect(self.clip_norm > 0, "clip_norm", "Use a positive gradient norm such as 1.0."),
            *self.expect(self.precision in PRECISIONS, "precision", f"Use one of {', '.join(PRECISIONS)}."),
            *self.expect(self.log_every > 0, "log_every", "Give at least 1 step."),
        ]
