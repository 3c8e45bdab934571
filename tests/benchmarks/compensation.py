"""What least squares give back after every operator, on the scenes teacher.

    python -m tests.benchmarks.compensation --seeds 3

carries the teacher through each operator alone, and through all of them in the recipe's order with every one
compensated, and prints the velocity error on held-out samples before and after, as means over the seeds with the
smallest gain of any. The floor is 1e-6 of the velocity's mean square: below it an operator costs nothing to win back.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch

from compress.config.prune import PAIR, STEPS, PruneConfig
from compress.errors import UserError
from compress.pruning.evolution import Row, evolve
from compress.pruning.surgery import Bench
from compress.stages.prune import draw_samples, make_plan
from students.system import DiffusionSystem

TEACHER = Path("teachers/weights/scenes")


def rows(config: PruneConfig, system: DiffusionSystem) -> list[Row]:
    """The evolution that `config` describes, measured."""
    teacher = system.unet.eval().requires_grad_(False)
    samples = draw_samples(config, system)
    chance = torch.Generator().manual_seed(config.seed)
    bench = Bench(samples.calibration, config.criterion, chance, config.kv_merge, config.layer_rule)
    return evolve(teacher, make_plan(config, teacher, system), samples, bench).rows


def alone(name: str, config: PruneConfig, system: DiffusionSystem) -> tuple[float, float] | None:
    """(error, error compensated) of one operator on the teacher; None where it needs another one before it."""
    config = replace(config, steps=(name,), compensated=(name,))
    if config.problems():
        return None
    try:
        row = rows(config, system)[1]
    except UserError:
        return None
    assert row.velocity_mse_fitted is not None
    return row.velocity_mse, row.velocity_mse_fitted


def chain(config: PruneConfig, system: DiffusionSystem) -> dict[str, tuple[float, float]]:
    """The same of every operator where its turn comes, all before it compensated."""
    found = rows(replace(config, compensated=(*STEPS, PAIR)), system)[1:]
    return {row.step: (row.velocity_mse, row.error) for row in found}


def line(name: str, place: str, found: list[tuple[float, float]]) -> str:
    """A row of the table."""
    if not found:
        return f"| {name} | {place} | needs another operator first | | |"
    before, after = (fmean(values) for values in zip(*found, strict=True))
    return f"| {name} | {place} | {before:.6f} | {after:.6f} | {min(a - b for a, b in found):+.6f} |"


def main() -> None:
    """Prints one Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--teacher", type=Path, default=TEACHER)
    args = parser.parse_args()
    system = DiffusionSystem.load(args.teacher, torch.device("cpu"))
    configs = [PruneConfig(seed=seed, unstructured_baseline=False) for seed in range(args.seeds)]
    print("| operator | where | velocity error | compensated | smallest gain of a seed |\n|---|---|---|---|---|")
    for name in STEPS:
        found = [result for config in configs if (result := alone(name, config, system)) is not None]
        print(line(name, "alone", found), flush=True)
    chains = [chain(config, system) for config in configs]
    for name in chains[0]:
        print(line(name, "in turn", [found[name] for found in chains]), flush=True)


if __name__ == "__main__":
    main()
