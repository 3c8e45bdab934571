"""A stage that needs no torch and takes as long as it is told: for tests and benchmarks of what happens around stages.

Every step of it leaves a line in the log, so that a step that was done twice is seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from compress.artifact import write_json
from compress.config.base import StageConfig
from compress.recipe import Recipe
from compress.stages.context import StageContext, StageResult
from compress.sweep import Objective, Sweep


@dataclass(frozen=True, kw_only=True)
class SleepConfig(StageConfig):
    """`steps` naps of `nap_s` seconds; the artefact is `size_kb` of zeros, and metrics that width and name decide."""

    kind: ClassVar[str] = "sleep"
    runner: ClassVar[str] = "tests.sleeper:run"
    uses_torch: ClassVar[bool] = False

    steps: int = 1
    width: int = 1
    size_kb: int = 1
    nap_s: float = field(default=0.0, metadata={"in_key": False})
    fails: bool = field(default=False, metadata={"in_key": False})
    dump: str = field(default="/dev/null", metadata={"in_key": False})  # /dev/full is a disk that takes nothing


def run(config: SleepConfig, ctx: StageContext) -> StageResult:
    """Goes on from the last step that was finished."""
    if config.fails:
        raise ArithmeticError(f"width {config.width} fails")
    checkpoint = ctx.work / "done.json"
    done = json.loads(checkpoint.read_text()) if checkpoint.exists() else 0
    for step in range(done, config.steps):
        time.sleep(config.nap_s)
        write_json(checkpoint, step + 1)
        with (ctx.logs / "steps.csv").open("a") as file:
            file.write(f"{step},{os.getpid()}\n")
    Path(config.dump).write_text("a nap")
    (ctx.out / "zeros.bin").write_bytes(config.name.encode() + bytes(1000 * config.size_kb))
    digest = hashlib.sha256(f"{config.name} {config.width}".encode()).digest()
    return StageResult(metrics={"error": digest[0] / config.width, "width": float(config.width)})


def sleeping_sweep(name: str, widths: int = 64, grid: bool = False, shared: bool = True, **fields: Any) -> Sweep:
    """Two stages and two objectives; the first stage is one of four if it is `shared`, else every trial has its own."""

    def sample(trial: Any) -> Recipe:
        seed = trial.suggest_categorical("seed", [0, 1, 2, 3])
        width = trial.suggest_categorical("width", list(range(1, widths + 1)))
        first = SleepConfig(name="a", seed=seed, width=1 if shared else width, **fields)
        second = SleepConfig(name="b", seed=seed, width=width, **fields)
        return Recipe(name="trial", description="A nap.", teacher=None, stages=(first, second))

    return Sweep(
        name=name,
        description="Naps.",
        sample=sample,
        objectives=(
            Objective(stage="b", metric="error", label="error", worst=300.0),
            Objective(stage="b", metric="width", label="width", worst=100.0),
        ),
        grid={"seed": [0, 1, 2, 3], "width": list(range(1, widths + 1))} if grid else None,
    )


def write_recipe(folder: Path, name: str = "naps", **fields: Any) -> Path:
    """A sweep's file, for the command line."""
    path = folder / f"{name}.py"
    call = f"sleeping_sweep({name!r}, **{fields!r})"
    path.write_text(f"from tests.sleeper import sleeping_sweep\n\n\ndef sweep():\n    return {call}\n")
    return path
