"""What the scores of all criteria cost together, against the dearest of them alone, on the scenes teacher.

    python -m tests.benchmarks.importance_cost --samples 64 --rounds 3

prints seconds for each criterion alone and for all from one pass, and the ratios: those that only look at samples
(activation to obs_diff) and then with eco_diff, which learns masks for itself. Best of the rounds, in one process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from compress.config.prune import CRITERIA, PruneConfig
from compress.pruning.calibration import Noised
from compress.pruning.criteria import collect
from compress.pruning.evolution import rehouse
from compress.stages.prune import draw_samples
from students.system import DiffusionSystem

LOOKING = CRITERIA[2:]  # all that need data


def seconds(unet: nn.Module, batches: Sequence[Noised], names: Sequence[str]) -> float:
    """The wall time of one pass for `names`, scores included."""
    began = time.perf_counter()
    collect(unet, batches, names, torch.Generator().manual_seed(0))
    return time.perf_counter() - began


def main() -> None:
    """Prints a line for each set of criteria, then the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--teacher", type=Path, default=Path("teachers/weights/scenes"))
    args = parser.parse_args()
    system = DiffusionSystem.load(args.teacher, torch.device("cpu"))
    samples = replace(PruneConfig(), calibration_samples=args.samples, fitting_samples=16, held_out_samples=16)
    batches = draw_samples(samples, system).calibration
    unet = rehouse(system.unet.eval().requires_grad_(False), system.text_encoder.config.hidden_size).unet
    seconds(unet, batches[:1], LOOKING[:3])  # warm
    sets = [*[(name,) for name in LOOKING], LOOKING[:-1], LOOKING]
    found = {names: min(seconds(unet, batches, names) for _ in range(args.rounds)) for names in sets}
    for names, spent in found.items():
        print(f"{', '.join(names):60} {spent:8.2f} s")
    for names in sets[-2:]:
        dearest = max((name,) for name in names if found[(name,)] == max(found[(other,)] for other in names))
        print(f"{len(names)} together / {dearest[0]}: {found[names] / found[dearest]:.2f}")


if __name__ == "__main__":
    main()
