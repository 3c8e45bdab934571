"""The one LightningModule that optimises, averages, logs and checkpoints; a stage only says what one step computes.

Resuming is exact: everything random in step i comes from a generator seeded by (seed, i), and a checkpoint holds the
weights, the averaged weights, the optimizers and the number of updates. So a killed run that is started again ends
with the weights of an unbroken one, bit for bit on the CPU.
"""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset

from compress.config.train import TrainConfig
from compress.stages.context import Progress, StageContext

CHECKPOINT = "last.ckpt"


@dataclass
class StepResult:
    """What one step computed: the scalar to minimise, and scalars to log beside it."""

    loss: Tensor
    terms: dict[str, Tensor | float] = field(default_factory=dict)


class Frozen:
    """Holds a teacher outside the module tree: in eval mode, without gradients, never in a checkpoint."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module.eval().requires_grad_(False)

    def __call__(self) -> nn.Module:
        return self._module

    def to(self, device: torch.device) -> None:
        self._module.to(device)


class _Updates(IterableDataset):
    """An endless stream of empty batches: a stage draws its own data from the update's generator."""

    def __iter__(self) -> Iterator[int]:
        while True:
            yield 0


class TrainingStage(L.LightningModule):
    """Base of all training stages. A subclass sets `self.trained` (one module) and implements `step`."""

    trained: Any  # an nn.Module of the subclass's own kind

    def __init__(self, config: TrainConfig, progress: Progress) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config = config
        self.label = config.name
        self.updates = 0
        self.curves: dict[str, list[tuple[float, float]]] = {}
        self._progress = progress
        self._averaged: AveragedModel | None = None
        self._guests: list[Frozen] = []

    # ---- what a subclass says -------------------------------------------------------------------------------------
    def step(self, update: int, generator: torch.Generator) -> StepResult:
        """Loss of update number `update`; all randomness comes from `generator` (on the CPU)."""
        raise NotImplementedError

    def validate_now(self, update: int) -> dict[str, float]:
        """Optional figures of the averaged weights for the learning curves; called after `update` updates."""
        return {}

    # ---- the loop -------------------------------------------------------------------------------------------------
    def guest(self, module: nn.Module) -> Frozen:
        """Registers a frozen module that follows the stage to its device but never enters `state_dict`."""
        frozen = Frozen(module)
        self._guests.append(frozen)
        return frozen

    def start_averaging(self) -> None:
        """Called once `self.trained` is set; the average starts at the initial weights."""
        if self.config.ema_decay > 0:
            self._averaged = AveragedModel(
                self.trained, multi_avg_fn=get_ema_multi_avg_fn(self.config.ema_decay), use_buffers=False
            )
            self._averaged.requires_grad_(False)

    @property
    def averaged(self) -> Any:
        """The module whose weights are saved: the running average, or the trained one where averaging is off."""
        return self.trained if self._averaged is None else self._averaged.module

    def optimizer_of(self, module: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        """AdamW over a module's trainable weights; no decay on biases and norms."""
        weights = [p for p in module.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in weights if p.dim() > 1], "weight_decay": self.config.weight_decay},
            {"params": [p for p in weights if p.dim() <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99), fused=True)

    def configure_optimizers(self) -> Any:
        return self.optimizer_of(self.trained, self.config.learning_rate)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(_Updates(), batch_size=None)

    def learning_rate_at(self, update: int) -> float:
        """Linear warm-up to the peak, then a half cosine down to its final share."""
        config = self.config
        if update < config.warmup_steps:
            return config.learning_rate * (update + 1) / config.warmup_steps
        share = (update - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        floor = config.final_learning_rate_share
        return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))

    def apply_gradients(self, loss: Tensor, optimizer: Any, module: nn.Module, learning_rate: float) -> Tensor:
        """One optimizer update of `module` from `loss`; returns the gradient's norm before clipping."""
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), self.config.clip_norm)
        if not torch.isfinite(norm):  # one bad batch must not poison weights and moments
            return norm
        optimizer.step()
        return norm

    def update(self, generator: torch.Generator) -> dict[str, Tensor | float]:
        """One update of the student; stages that alternate several networks override this."""
        result = self.step(self.updates, generator)
        optimizer = self.optimizers()
        norm = self.apply_gradients(result.loss, optimizer, self.trained, self.learning_rate_at(self.updates))
        return {"loss": result.loss.detach(), "gradient_norm": norm, **result.terms}

    def training_step(self, batch: int, batch_index: int) -> None:
        if self.updates >= self.config.steps:  # killed between the last update and the artefact: nothing is left to do
            self.trainer.should_stop = True
            return
        generator = torch.Generator().manual_seed(_mix(self.config.seed, self.updates))
        terms = self.update(generator)
        if self._averaged is not None:
            self._averaged.update_parameters(self.trained)
        self.updates += 1
        last = self.updates >= self.config.steps
        if self.updates % self.config.log_every == 0 or last or self.updates == 1:
            terms = {**terms, **self.validate_now(self.updates)}
            values = {name: float(value) for name, value in terms.items()}
            self.log_dict(values, logger=False)  # for callbacks; Lightning's own loggers would repeat it every step
            for logger in self.loggers:
                logger.log_metrics(values, step=self.updates)
            for name, value in values.items():
                self.curves.setdefault(name, []).append((float(self.updates), value))
            self._progress.advance(0, **{name: values[name] for name in values if name in ("loss", "t2i", "edit")})
        self._progress.advance(1)
        if last:
            self.trainer.should_stop = True

    def on_fit_start(self) -> None:
        if self.config.compile and self.device.type == "cuda":
            self.trained.compile(dynamic=False)
        for frozen in self._guests:
            frozen.to(self.device)

    def on_train_start(self) -> None:
        self._progress.start(self.config.steps, "steps", self.label, done=self.updates)

    # ---- checkpoints ----------------------------------------------------------------------------------------------
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["stage"] = {"updates": self.updates, "curves": self.curves}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.updates = checkpoint["stage"]["updates"]
        self.curves = {name: [tuple(row) for row in rows] for name, rows in checkpoint["stage"]["curves"].items()}


class _Checkpoints(L.Callback):
    """Writes the checkpoint every so many seconds, whole or not at all."""

    def __init__(self, path: Path, every_s: float) -> None:
        self.path, self.every_s, self.last_s = path, every_s, time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.should_stop or time.monotonic() - self.last_s >= self.every_s:
            self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        half_written = self.path.with_suffix(".part")
        trainer.save_checkpoint(half_written)
        os.replace(half_written, self.path)
        self.last_s = time.monotonic()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt) and trainer.global_step > 0:
            self.save(trainer)


class _Watch(L.Callback):
    """Tells whoever watches the run every new point of the learning curves; what that raises ends the training."""

    def __init__(self, watch: Callable[[int, Mapping[str, float]], None]) -> None:
        self._watch, self._told = watch, 0

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        assert isinstance(module, TrainingStage)
        new = {name: rows[-1][1] for name, rows in module.curves.items() if rows[-1][0] == module.updates}
        if new and module.updates > self._told:
            self._told = module.updates
            self._watch(module.updates, new)


def _mix(seed: int, update: int) -> int:
    """A generator seed that differs for every (seed, update)."""
    return (seed * 1_000_003 + update * 2_654_435_761) % (2**63)


def attention_on(device: torch.device) -> AbstractContextManager[Any]:
    """The attention that trains fastest: torch's own choice on a GPU, plain matrix products on a CPU.

    On a CPU the fused kernel's backward pass over sequences this short took a quarter of a whole training step.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def fit(stage: TrainingStage, ctx: StageContext, label: str) -> TrainingStage:
    """Trains to `config.steps`, continuing from the work folder's checkpoint where there is one."""
    config = stage.config
    torch.manual_seed(config.seed)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # our own progress says what matters
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    checkpoint = ctx.work / CHECKPOINT
    ctx.work.mkdir(parents=True, exist_ok=True)
    watching = [_Watch(ctx.watch)] if ctx.watch is not None else []
    trainer = L.Trainer(
        max_epochs=-1,
        accelerator="gpu" if ctx.device.type == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
        logger=[  # a continued stage goes on in the same TensorBoard run, and in another CSV beside the first
            CSVLogger(ctx.logs, name="csv", flush_logs_every_n_steps=1),
            TensorBoardLogger(ctx.logs, name="tensorboard", version=0),
        ],
        callbacks=[_Checkpoints(checkpoint, config.checkpoint_every_s), *watching],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
    )
    resume = checkpoint if checkpoint.exists() else None
    stage.label = label
    try:
        with attention_on(ctx.device):
            trainer.fit(stage, ckpt_path=resume, weights_only=True)
    except SystemExit as stop:  # Lightning turns Ctrl-C into exit(1) after its hooks have run
        raise KeyboardInterrupt from stop
    stage.to(ctx.device)
    return stage
