"""What the layer rules' choices cost: each takes one transformer block of two from every layer of the lowest stage.

    python -m tests.benchmarks.layer_rules --seeds 3

prints, for every rule, the velocity error on held-out samples of the scenes teacher without those blocks, not
compensated, and which blocks each seed kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

import torch

from compress.config.prune import LAYER_RULES, PruneConfig
from compress.pruning.evolution import evolve
from compress.pruning.surgery import Bench
from compress.stages.prune import draw_samples, make_plan
from students.system import DiffusionSystem


def later_blocks(kept: dict[str, list[int]]) -> str:
    """The layers that kept another transformer block than their first."""
    layers = [name.removesuffix(".transformer_blocks") for name, blocks in kept.items() if "transformer_blocks" in name]
    later = [layer for layer in layers if kept[f"{layer}.transformer_blocks"] != [0]]
    return f"the second block of {', '.join(later)}, else the first" if later else "the first block of each"


def main() -> None:
    """Prints a row a rule."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--teacher", type=Path, default=Path("teachers/weights/scenes"))
    args = parser.parse_args()
    system = DiffusionSystem.load(args.teacher, torch.device("cpu"))
    teacher = system.unet.eval().requires_grad_(False)
    widths = tuple(dict(teacher.config)["block_out_channels"])
    print("| layer rule | velocity error | lowest to highest of the seeds | kept, by seed |\n|---|---|---|---|")
    for rule in LAYER_RULES:
        errors, kept = [], []
        for seed in range(args.seeds):
            config = PruneConfig(seed=seed, widths=widths, steps=("depth",), layer_rule=rule, compensated=())
            samples = draw_samples(config, system)
            chance = torch.Generator().manual_seed(seed)
            bench = Bench(samples.calibration, config.criterion, chance, config.kv_merge, rule)
            evolution = evolve(teacher, make_plan(config, teacher, system), samples, bench)
            errors.append(evolution.rows[1].velocity_mse)
            kept.append(later_blocks(evolution.report["depth"]))
        choices = "; ".join(dict.fromkeys(kept))
        print(f"| {rule} | {fmean(errors):.6f} | {min(errors):.6f} to {max(errors):.6f} | {choices} |", flush=True)


if __name__ == "__main__":
    main()
