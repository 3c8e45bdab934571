"""A real stage that is fast: a seeded random walk with checkpoints, for tests of everything around stages."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file, save_file

from compress.config.base import StageConfig
from compress.errors import Problem
from compress.plan import Options
from compress.recipe import Recipe, TeacherRef
from compress.stages.context import StageContext, StageResult


@dataclass(frozen=True, kw_only=True)
class ToyConfig(StageConfig):
    """`steps` updates of `width` numbers, each taking `step_s` seconds; the walk starts from the parent's numbers."""

    kind: ClassVar[str] = "toy"
    runner: ClassVar[str] = "tests.toy:run"

    steps: int = 3
    width: int = 64
    step_s: float = field(default=0.0, metadata={"in_key": False})
    scale: float | None = None
    sizes: tuple[int, ...] = (1, 2)
    log_every: int = field(default=1, metadata={"in_key": False})
    added_later: int = field(default=0, metadata={"absent_means": 0})

    def problems(self) -> list[Problem]:
        """Steps are positive and widths lie on the lattice of 32."""
        return [
            *self.expect(self.steps > 0, "steps", "Give at least 1."),
            *self.expect(self.width % 32 == 0, "width", "Use a multiple of 32."),
        ]


def run(config: ToyConfig, ctx: StageContext) -> StageResult:
    """Every update is drawn from (seed, update), so a resumed walk ends where an unbroken one does."""
    checkpoint, done = ctx.work / "state.safetensors", 0
    x = torch.zeros(config.width)
    if ctx.parent is not None:
        x += load_file(ctx.parent / "weights.safetensors")["x"].mean()
    if checkpoint.exists():
        state = load_file(checkpoint)
        x, done = state["x"], int(state["done"])
    ctx.progress.start(config.steps, "steps", config.name, done=done)
    log = ctx.logs / "walk.csv"
    for update in range(done, config.steps):
        x = 0.9 * x + torch.randn(config.width, generator=torch.Generator().manual_seed(1000 * config.seed + update))
        time.sleep(config.step_s)
        with log.open("a") as file:
            file.write(f"{update},{os.getpid()}\n")
        save_file({"x": x, "done": torch.tensor(update + 1)}, checkpoint.with_suffix(".part"))
        os.replace(checkpoint.with_suffix(".part"), checkpoint)
        ctx.progress.advance(1, loss=float(x.norm()))
    save_file({"x": x}, ctx.out / "weights.safetensors")
    (ctx.out / "nested").mkdir()
    (ctx.out / "nested" / "config.json").write_text(json.dumps({"width": config.width}))
    return StageResult(metrics={"norm": float(x.norm())}, curves={"loss": [(config.steps, float(x.norm()))]})


def toy_recipe(*names: str, live: tuple[str, ...] = (), teacher: Path | None = None, **fields: object) -> Recipe:
    """A chain of toy stages; `fields` go to every one of them."""
    stages = tuple(ToyConfig(name=name, **fields) for name in names or ("a", "b", "c"))  # type: ignore[arg-type]
    reference = TeacherRef(folder=str(teacher)) if teacher else None
    return Recipe(name="toy", description="A toy.", teacher=reference, stages=stages, live=live)


def options(tmp_path: Path, run: str = "toy", **fields: object) -> Options:
    """Options of a run in `tmp_path`/runs/<run>, with nothing shipped but what `tmp_path`/shipped holds."""
    runs = tmp_path / "runs"
    return Options(out=runs / run, runs=runs, shipped=(tmp_path / "shipped",), **fields)  # type: ignore[arg-type]


def numbers(folder: Path) -> list[float]:
    """The weights in an artefact folder."""
    values: list[float] = load_file(folder / "weights.safetensors")["x"].tolist()
    return values
