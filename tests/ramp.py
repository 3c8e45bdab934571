"""A stage that really trains, with Lightning, and fast; its learning curve rises to a height that is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from safetensors.torch import save_file
from torch import nn

from compress.config.train import TrainConfig
from compress.stages.base import StepResult, TrainingStage, fit
from compress.stages.context import Progress, StageContext, StageResult


@dataclass(frozen=True, kw_only=True)
class RampConfig(TrainConfig):
    """One weight is pulled to zero; meanwhile the "score" rises linearly to `height`."""

    kind: ClassVar[str] = "ramp"
    runner: ClassVar[str] = "tests.ramp:run"

    name: str = "ramp"
    steps: int = 8
    precision: str = "fp32"
    log_every: int = field(default=2, metadata={"in_key": False})
    height: float = 1.0


class Ramp(TrainingStage):
    """The weight's square is the loss."""

    def __init__(self, config: RampConfig, progress: Progress) -> None:
        super().__init__(config, progress)
        self.height = config.height
        self.trained = nn.Linear(1, 1, bias=False)
        self.start_averaging()

    def step(self, update: int, generator: torch.Generator) -> StepResult:
        return StepResult(self.trained.weight.square().sum())

    def validate_now(self, update: int) -> dict[str, float]:
        return {"score": self.height * update / self.config.steps}


def run(config: RampConfig, ctx: StageContext) -> StageResult:
    """Trains, and keeps the averaged weight."""
    stage = Ramp(config, ctx.progress)
    fit(stage, ctx, config.name)
    save_file({"weight": stage.averaged.weight.detach().clone()}, ctx.out / "weights.safetensors")
    return StageResult(metrics={"score": stage.curves["score"][-1][1]}, curves=stage.curves)
