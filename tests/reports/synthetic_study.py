"""A study as a sweep leaves it: invented trials with every field a study.json can have, the same for the same seed.

Its values follow simple formulae of the parameters, so that fronts, importances and slices have something to show: they
are nobody's results.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.reports.synthetic import make_run

BEGUN = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
WORKERS = 4
OBJECTIVES = [
    {"label": "velocity error", "metric": "velocity_mse", "stage": "prune", "maximize": False},
    {"label": "parameters (M)", "metric": "parameters_m", "stage": "prune", "maximize": False},
    {"label": "edit score", "metric": "edit", "stage": "joint", "maximize": True},
]
PARAMETERS = [
    {"name": "width_middle", "kind": "int", "low": 64, "high": 256, "log": False},
    {"name": "width_lowest", "kind": "int", "low": 64, "high": 512, "log": False},
    {"name": "layers_lowest", "kind": "int", "low": 1, "high": 4, "log": False},
    {"name": "ff_mult", "kind": "int", "low": 2, "high": 4, "log": False},
    {"name": "criterion", "kind": "categorical", "choices": ["magnitude", "taylor", "obs_diff", "eco_diff"]},
    {"name": "learning_rate", "kind": "float", "low": 1e-5, "high": 1e-3, "log": True},
    {"name": "kd_weight", "kind": "float", "low": 0.0, "high": 1.0, "log": False},
]
IMPORTANCE = {
    "velocity error": {
        "width_lowest": 0.46,
        "criterion": 0.27,
        "width_middle": 0.16,
        "layers_lowest": 0.08,
        "ff_mult": 0.03,
    },
    "parameters (M)": {"width_lowest": 0.71, "layers_lowest": 0.17, "width_middle": 0.08, "ff_mult": 0.04},
    "edit score": {"learning_rate": 0.52, "width_lowest": 0.24, "kd_weight": 0.15, "criterion": 0.09},
}
PENALTY = {"magnitude": 0.30, "taylor": 0.0, "obs_diff": 0.05, "eco_diff": 0.12}


def make_study(root: Path, trials: int = 1000, objectives: int = 3, pictures: int = 0) -> Path:
    """Writes runs/sweeps/synthetic/study.json under `root`, with run folders for `pictures` trials of the front."""
    folder = root / "runs" / "sweeps" / "synthetic"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(study(trials, objectives)))
    if pictures:
        give_pictures(folder, pictures)
    return folder


def study(trials: int = 1000, objectives: int = 3) -> dict[str, Any]:
    """The record: about 2 % of the trials failed, 4 % were pruned, 6 % break the constraint."""
    rng = random.Random(trials)
    clock_s = [0.0] * WORKERS
    rows = [_trial(rng, number, clock_s, objectives) for number in range(trials)]
    chosen = OBJECTIVES[:objectives]
    return {
        "name": "synthetic",
        "description": "An invented search over widths, depths and distillation.",
        "objectives": chosen,
        "parameters": PARAMETERS,
        "trials": rows,
        "importance": {objective["label"]: IMPORTANCE[objective["label"]] for objective in chosen},
    }


def _trial(rng: random.Random, number: int, clock_s: list[float], objectives: int) -> dict[str, Any]:
    params = _params(rng, number)
    values = _values(rng, params)
    luck = rng.random()
    state = "fail" if luck < 0.02 else "pruned" if luck < 0.06 else "complete"
    worker = min(range(WORKERS), key=lambda index: clock_s[index])
    stages = _stages(rng, params, state)
    start_s = clock_s[worker]
    wall_s = sum(stage["wall_s"] for stage in stages if stage["action"] == "run") + rng.uniform(2, 6)
    clock_s[worker] += wall_s + rng.uniform(0.1, 1)
    steps = range(100, 1100 if state == "complete" else 500, 100)
    return {
        "number": number,
        "state": state,
        "params": params,
        "values": values[:objectives] if state == "complete" else None,
        "constraints": [round(values[1] - 14.5, 3)],
        "folder": f"trial-{hashlib.sha256(str(number).encode()).hexdigest()[:12]}",
        "worker": f"host-{worker + 1}",
        "started_utc": _moment(start_s),
        "finished_utc": _moment(start_s + wall_s),
        "wall_s": round(wall_s, 2),
        "intermediate": [[step, round(values[0] * (1 + 300 / step), 5)] for step in steps],
        "stages": stages,
    }


def _params(rng: random.Random, number: int) -> dict[str, Any]:
    """The search goes from anywhere to where it is good; `kd_weight` is asked of the wider half only."""
    wide = 8 if number < 200 else rng.choice((4, 5, 6, 8))
    params: dict[str, Any] = {
        "width_middle": 64 * rng.randint(1, 4),
        "width_lowest": 64 * rng.randint(1, wide),
        "layers_lowest": rng.randint(1, 4),
        "ff_mult": rng.randint(2, 4),
        "criterion": rng.choice(list(PENALTY) + ["taylor"] * (number // 300)),
        "learning_rate": 10 ** rng.uniform(-5, -3) if number < 200 else 10 ** rng.gauss(-3.6, 0.35),
    }
    params["learning_rate"] = min(1e-3, max(1e-5, params["learning_rate"]))
    return params | ({"kd_weight": rng.random()} if params["width_lowest"] > 128 else {})


def _values(rng: random.Random, p: dict[str, Any]) -> list[float]:
    size = (
        0.9 + p["width_lowest"] ** 1.2 * p["layers_lowest"] ** 0.5 * p["ff_mult"] ** 0.3 / 340 + p["width_middle"] / 90
    )
    error = (2.1 / size**0.8) * (1 + PENALTY[p["criterion"]]) * rng.uniform(0.9, 1.15)
    rate = abs(math.log10(p["learning_rate"] / 2.5e-4))
    score = 0.93 - 0.28 * error - 0.16 * rate - 0.06 * abs(p.get("kd_weight", 0.0) - 0.6) + rng.gauss(0, 0.012)
    return [round(error, 5), round(size, 4), round(max(0.02, score), 4)]


def _stages(rng: random.Random, params: dict[str, Any], state: str) -> list[dict[str, Any]]:
    took = {
        "prune": rng.uniform(4, 9),
        "t2i": rng.uniform(20, 40),
        "joint": rng.uniform(30, 60),
        "quantize": rng.uniform(6, 11),
    }
    reused = {"prune": rng.random() < 0.55, "t2i": rng.random() < 0.3}
    names = list(took) if state == "complete" else ["prune", "t2i"]
    keys = {name: hashlib.sha256(f"{name}{params}".encode()).hexdigest() for name in names}
    action = {name: "reused" if reused.get(name) else "run" for name in names}
    return [
        {"name": n, "key": keys[n], "action": action[n], "wall_s": 0.0 if action[n] == "reused" else round(took[n], 2)}
        for n in names
    ]


def _moment(seconds: float) -> str:
    return (BEGUN + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def give_pictures(folder: Path, most: int) -> None:
    """Run folders for `most` trials of the front: two stages with cards, the second with pictures."""
    from reports.study.read import read_study

    template = make_run(folder.parent, "template")
    for trial in read_study(folder).front[:most]:
        for stage in ("10-prune", "40-joint"):
            shutil.copytree(template / stage, folder / trial.folder / stage)
    shutil.rmtree(folder.parent / "runs")
    shutil.rmtree(folder.parent / "teachers")
