"""Post-training of the unified student: reward fine-tuning and step distillation."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

from compress.config.train import TrainConfig
from compress.errors import Problem

HINGES = ("below", "above", "all")
WALKS = ("ode", "stochastic")
FINISHES = ("one_step", "sampler")


@dataclass(frozen=True, kw_only=True)
class RewardConfig(TrainConfig):
    """ReFL: the learned reward's gradient through one step of the sampler, held back by an anchor to the parent.

    Prompts and sources are drawn from pools of `pool_samples` a task; `edit_share` of a batch are edits. Of a sampler
    of `sampler_steps` steps the walk goes without gradient to a random level within `window`, and with it from there:
    in one step ("one_step", ReFL) or by all steps that the sampler has left ("sampler", as DRaFT, arXiv 2309.17400),
    which costs more and scores what is drawn instead of a guess at it. The window has to lie where it is decided what
    is drawn: through the last steps, at levels up to 0.5, nothing was learned (reports/LOG.md).
    `equal_gradients` gives every state of every sample a gradient of length 1, or a batch learns from its steepest rows
    alone. `hinge` says which samples learn (see objectives/reward_gradient); rewards are logits of being right.
    `anchor_weight` multiplies the squared distance of velocities to the parent's. `model_*` train the reward itself.
    The exact verifier judges `judge_images` pictures a task every `judge_every` steps, before the first and after the
    last.
    """

    kind: ClassVar[str] = "reward"
    runner: ClassVar[str] = "compress.stages.reward:run"
    code_version: ClassVar[int] = 2

    name: str = "reward"
    steps: int = 200
    batch_size: int = 32
    learning_rate: float = 5e-5
    warmup_steps: int = 10
    ema_decay: float = 0.95
    log_every: int = field(default=10, metadata={"in_key": False})
    edit_share: float = 0.5
    pool_samples: int = 65536
    sampler_steps: int = 8
    window: tuple[float, float] = (0.6, 0.96)
    finish: str = field(default="one_step", metadata={"absent_means": "one_step"})
    guided: bool = True
    equal_gradients: bool = field(default=False, metadata={"absent_means": False})
    hinge: str = "below"
    threshold: float = 3.0
    anchor_weight: float = 1.0
    model_steps: int = 1500
    model_batch_size: int = 128
    model_learning_rate: float = 1e-3
    model_pictures: int = 1024
    model_specs: int = 32768
    judge_every: int = 100
    judge_images: int = 210

    def problems(self) -> list[Problem]:
        """Also: gradient steps within the sampler's, a known hinge, shares and counts."""
        ordered = 0 < self.window[0] < self.window[1] <= 1
        return [
            *super().problems(),
            *self.expect(0 <= self.edit_share <= 1, "edit_share", "Use a share from 0 (T2I only) to 1 (edits only)."),
            *self.expect(self.pool_samples > 0, "pool_samples", "Give at least 1 prompt to draw from."),
            *self.expect(self.sampler_steps > 0, "sampler_steps", "Give at least 1 step."),
            *self.expect(ordered, "window", "Give two rising noise levels in (0, 1], such as [0.6, 0.96]."),
            *self.expect(self.finish in FINISHES, "finish", f"Use one of {', '.join(FINISHES)}."),
            *self.expect(self.hinge in HINGES, "hinge", f"Use one of {', '.join(HINGES)}."),
            *self.expect(self.anchor_weight >= 0, "anchor_weight", "Use 0 (off) or a positive weight."),
            *self.expect(self.model_steps > 0, "model_steps", "Give at least 1 step to train the reward."),
            *self.expect(self.model_pictures >= 8, "model_pictures", "Give at least 8: one in eight is held out."),
            *self.expect(self.model_specs > 0, "model_specs", "Give at least 1."),
            *self.expect(self.judge_every > 0, "judge_every", "Give at least 1 step."),
            *self.expect(self.judge_images > 0, "judge_images", "Give at least 1 picture to judge."),
        ]


@dataclass(frozen=True, kw_only=True)
class DistillConfig(TrainConfig):
    """DMD2 from the guided many-step parent to a student that walks `rungs` without guidance.

    `walk` is how the student is run, in training and ever after: "stochastic" predicts x0 and noises it afresh to the
    next rung, "ode" takes Euler steps. The first `regression_steps` updates fit the student to `paths` recorded paths
    of the parent (`path_steps` steps each); the rest match distributions, with `fake_ratio` updates of the fake score
    for each of the student, after `fake_warmup_steps` of the fake score alone. `regression_weight` keeps the regression
    beside the matching. Scores are compared at levels uniform in [`noise_low`, `noise_high`]. Guidance scales left at
    None are the parent's own.
    """

    kind: ClassVar[str] = "distill"
    runner: ClassVar[str] = "compress.stages.distill:run"

    name: str = "distill"
    steps: int = 1500
    learning_rate: float = 2e-5
    ema_decay: float = 0.99
    warmup_steps: int = 20
    edit_share: float = 0.5
    pool_samples: int = 65536
    rungs: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    walk: str = "stochastic"
    guidance_text: float | None = None
    guidance_edit_text: float | None = None
    guidance_image: float | None = None
    paths: int = 4096
    path_steps: int = 16
    regression_steps: int = 1000
    regression_learning_rate: float = 2e-4
    regression_weight: float = 0.0
    fake_ratio: int = 2
    fake_warmup_steps: int = 20
    fake_learning_rate: float = 1e-4
    noise_low: float = 0.02
    noise_high: float = 0.98
    validate_every: int = field(default=250, metadata={"in_key": False})
    validate_images: int = field(default=120, metadata={"in_key": False})

    def problems(self) -> list[Problem]:
        """Also: falling rungs from 1, a known walk, phases that fit into the steps, ranges of levels."""
        falling = len(self.rungs) > 0 and all(high > low for high, low in pairwise(self.rungs))
        rungs = falling and self.rungs[0] == 1.0 and self.rungs[-1] > 0
        regressing = self.regression_steps > 0 or self.regression_weight > 0
        levels = 0 < self.noise_low < self.noise_high < 1
        return [
            *super().problems(),
            *self.expect(rungs, "rungs", "Give falling levels from 1.0, such as [1.0, 0.75, 0.5, 0.25]."),
            *self.expect(self.walk in WALKS, "walk", f"Use one of {', '.join(WALKS)}."),
            *self.expect(0 <= self.edit_share <= 1, "edit_share", "Use a share from 0 (T2I only) to 1 (edits only)."),
            *self.expect(self.pool_samples > 0, "pool_samples", "Give at least 1 prompt to draw from."),
            *self.expect(
                0 <= self.regression_steps <= self.steps, "regression_steps", f"Use 0 to {self.steps}, all the steps."
            ),
            *self.expect(self.regression_weight >= 0, "regression_weight", "Use 0 (off) or a positive weight."),
            *self.expect(not regressing or self.paths > 0, "paths", "Give at least 1 path to regress on."),
            *self.expect(self.path_steps > 0, "path_steps", "Give at least 1 step."),
            *self.expect(self.fake_ratio > 0, "fake_ratio", "Give at least 1 update of the fake score."),
            *self.expect(self.fake_warmup_steps >= 0, "fake_warmup_steps", "Use 0 or more."),
            *self.expect(0 < self.fake_learning_rate < 1, "fake_learning_rate", "Use a value such as 1e-4."),
            *self.expect(levels, "noise_low", f"Use a level between 0 and noise_high, which is {self.noise_high}."),
            *self.expect(self.validate_every > 0, "validate_every", "Give at least 1 step."),
        ]
