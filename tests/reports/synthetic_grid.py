"""A sweep's folder as `pocketdiff sweep` leaves it: a grid of criteria, budgets and seeds. Its figures are invented."""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path
from typing import Any

METHODS = ("random", "magnitude", "activation", "taylor", "fisher", "obs_diff", "taylor, laptop", "taylor, bk_sdm")
BUDGETS_M = (10.8, 5.31, 2.7)
SEEDS = (0, 1, 2)
OBJECTIVES = (
    ("prune", "parameters_m", "parameters (M)", False),
    ("prune", "macs_g", "MACs (G)", False),
    ("prune", "velocity_mse", "velocity error, pruned", False),
    ("t2i", "velocity_mse", "velocity error, recovered", False),
    ("t2i", "t2i", "T2I score, recovered", True),
)


def make_grid(
    folder: Path, methods: tuple[str, ...] = METHODS, budgets_m: tuple[float, ...] = BUDGETS_M, unfinished: int = 0
) -> Path:
    """Writes the record and one prune card a trial into `folder`; the last `unfinished` trials are still running."""
    folder.mkdir(parents=True)
    grid = {"method": list(methods), "budget_m": list(budgets_m), "seed": list(SEEDS)}
    trials = []
    for number, (method, budget_m, seed) in enumerate(product(*grid.values())):
        name = f"trial-{number:012x}"
        params = {"method": method, "budget_m": budget_m, "seed": seed}
        trials.append({"number": number, "state": "complete", "params": params, "folder": name})
        trials[-1]["values"] = values(method, budget_m, seed)
        _write_card(folder / name / "10-prune", method, budget_m, seed)
    for trial in trials[len(trials) - unfinished :]:
        trial |= {"state": "running", "values": None}
    write_record(folder, grid, trials)
    return folder


def write_record(folder: Path, grid: dict[str, Any], trials: list[dict[str, Any]]) -> None:
    """study.json with this grid and these trials."""
    objectives = [dict(zip(("stage", "metric", "label", "maximize"), o, strict=True)) for o in OBJECTIVES]
    parameters = [{"name": name, "kind": "categorical", "choices": values} for name, values in grid.items()]
    rest = {"parameters": parameters, "grid": grid, "replicate": "seed", "trials": trials}
    head = {"name": "scenes_criteria", "description": "An invented sweep.", "objectives": objectives}
    (folder / "study.json").write_text(json.dumps(head | rest))


def values(method: str, budget_m: float, seed: int) -> list[float]:
    """Later methods are better, larger budgets too, and seeds differ."""
    rng = random.Random(f"{method} {budget_m} {seed}")
    skill = 1 - 0.09 * METHODS.index(method)
    pruned = skill * 4 / budget_m * (1 + rng.gauss(0, 0.06))
    score = 0.8 - 0.9 * skill / budget_m + rng.gauss(0, 0.02)
    return [0.99 * budget_m, 0.03 * budget_m, pruned, 0.2 * pruned, max(0.0, score)]


def _write_card(folder: Path, method: str, budget_m: float, seed: int) -> None:
    folder.mkdir(parents=True)
    rng = random.Random(f"{method} {budget_m} {seed}")
    share = (budget_m / 21.6) ** 0.5
    kept, depth = {}, {}
    for block, width in (("down_blocks.1", 128), ("down_blocks.2", 256), ("up_blocks.0", 256), ("mid_block", 256)):
        alternate = method.endswith("bk_sdm") and block != "mid_block"
        depth[f"{block}.resnets"] = [1 if alternate else 0]
        depth[f"{block}.attentions"] = [1 if alternate else 0]
        for name, kind, units in (
            ("resnets.0.conv1", "channel", width),
            ("attentions.0.proj_in", "channel", width),
            ("attentions.0.transformer_blocks.0.attn1", "head", width // 64),
            ("attentions.0.transformer_blocks.0.ff", "neuron", 4 * width),
            ("attentions.0.proj_out", "channel", width),
        ):
            row = {"kind": kind, "units": units, "kept": max(1, round(share * units))}
            kept[f"{block}.{name}"] = row | {"score_share": min(1.0, share * (1.1 + 0.1 * rng.random()))}
    kept["conv_in"] = {"kind": "channel", "units": 64, "kept": 64, "score_share": 1.0}
    extra = {"kept": {"width": kept}, "depth": depth}
    card = {"name": "10-prune", "stage": "prune", "key": f"{method} {budget_m} {seed}", "extra": extra}
    (folder / "card.json").write_text(json.dumps(card))
