"""A run folder as the pipeline leaves it, with every field a card can have; its pictures come from the real world.

Its figures are invented, so that a report can be tested and looked at in seconds: they are nobody's results.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from compress.data.scenes.captions import T2I_TASKS, sample_t2i
from compress.data.scenes.edits import EDIT_TASKS, sample_edit
from compress.data.scenes.world import render

STAGES = ("prune", "t2i", "edit", "joint", "sft", "reward", "distill", "quantize", "deploy")
REUSED = {"t2i", "edit", "sft", "reward", "distill"}
SCORES = {
    "teacher": (0.952, None),
    "prune": (0.021, None),
    "t2i": (0.925, None),
    "edit": (0.902, 0.806),
    "joint": (0.931, 0.842),
    "sft": (0.934, 0.851),
    "reward": (0.957, 0.883),
    "distill": (0.938, 0.866),
    "quantize": (0.935, 0.861),
    "deploy": (0.931, 0.858),
}
HOURS = {"prune": 0.03, "t2i": 2.4, "edit": 1.9, "joint": 3.1, "sft": 0.4, "reward": 0.9, "distill": 1.2}


def make_run(root: Path, name: str = "scenes", pictures: int = 1) -> Path:
    """Writes runs/<name> and teachers/weights/<name> under `root`; returns the run folder.

    `pictures` is how many prompts of each task every stage has drawn.
    """
    run, teacher = root / "runs" / name, root / "teachers" / "weights" / name / "30-teacher"
    parent = _write(teacher, "30-teacher", "teacher", None, pictures)
    first = parent
    folders = []
    for number, stage in enumerate(STAGES, start=1):
        folder = f"{number}0-{stage}"
        parents = [parent] if parent is first else [parent, first]
        parent = _write(run / folder, folder, stage, parents, pictures)
        folders.append(folder)
    recipe = {
        "name": name,
        "description": "An invented run: nine stages from a 31.9 M teacher to a context binary for the HTP.",
        "teacher": {"folder": str(teacher), **first},
        "live": ["prune", "joint", "quantize", "deploy"],
        "stages": [{"kind": stage, "name": stage, "seed": 0} for stage in STAGES],
        "run": {"command": ["pocketdiff", "run", name], "wall_s": 1122.0, "stages": [_entry(f) for f in folders]},
    }
    (run / "recipe.json").write_text(json.dumps(recipe, indent=1))
    return run


def _entry(folder: str) -> dict[str, Any]:
    action = "reused" if folder.partition("-")[2] in REUSED else "run"
    return {"name": folder.partition("-")[2], "folder": folder, "key": _hash(folder), "action": action}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write(folder: Path, name: str, stage: str, parents: list[dict[str, str]] | None, pictures: int) -> dict[str, str]:
    folder.mkdir(parents=True)
    key, content = _hash(name), _hash(name + " content")
    card = {
        "name": name,
        "stage": stage,
        "key": key,
        "code_version": 1,
        "content_hash": content,
        "parents": parents or [],
        "files": {"unet/diffusion_pytorch_model.safetensors": {"bytes": 33_700_000, "sha256": _hash("weights")}},
        "spec": {"_class_name": "DreamLiteUNetModel", "block_out_channels": [64, 128, 192], "layers_per_block": 1},
        "recipe": {"kind": stage, "name": stage, "seed": 0, "steps": 4000, "learning_rate": 0.0003},
        "metrics": metrics(stage),
        "curves": curves(stage),
        "extra": extra(stage),
        "versions": {"python": "3.11.7", "torch": "2.14.1" if stage not in REUSED else "2.11.0", "diffusers": "0.42.1"},
        "git_commit": _hash("commit")[:40],
        "wall_s": 3600 * HOURS.get(stage, 0.06),
        "peak_rss_gb": 3.412,
        "created_utc": "2026-11-20T08:15:00Z",
        "machine": {"processor": "Some CPU @ 2.00GHz", "cores": 2, "memory_gb": 23.4, "device": "cpu"},
        "reused_from": f"students/weights/scenes_full/{name} (shipped)" if stage in REUSED else None,
    }
    (folder / "card.json").write_text(json.dumps(card, indent=1))
    steps = 4 if stage in {"distill", "quantize", "deploy"} else 28
    (folder / "sampling.json").write_text(json.dumps({"steps": steps, "guidance_text": 3.0}))
    if pictures:
        write_samples(folder / "samples", stage, pictures)
    return {"name": name, "key": key, "content_hash": content}


def metrics(stage: str) -> dict[str, float]:
    """What a stage's card tells in numbers."""
    small = stage != "teacher"
    found = {"parameters_m": 8.437 if small else 31.92, "macs_g": 0.412 if small else 1.305}
    t2i, edit = SCORES[stage]
    found |= _interval("t2i", t2i, 1000)
    for index, task in enumerate(T2I_TASKS):
        found[f"task_{task}"] = min(1.0, t2i * (1.05 - 0.02 * index))
    if edit is not None:
        found |= _interval("edit", edit, 1000) | _interval("overall", (t2i + edit) / 2, 2000)
        found |= {f"task_edit_{task}": min(1.0, edit * (1.09 - 0.03 * i)) for i, task in enumerate(EDIT_TASKS)}
        found |= {"part_carried_out": min(1.0, edit + 0.06), "part_unchanged": min(1.0, edit + 0.04)}
        found |= {"part_held_out": t2i - 0.1, "untouched_psnr_db": 31.4}
    else:
        found |= _interval("overall", t2i, 1000)
    if stage == "quantize":
        found |= {"aimet_vs_float_sqnr_db": 40.2, "calibration_samples_count": 256}
    if stage == "deploy":
        found |= {"htp_vs_aimet_sqnr_db": 69.8, "htp_vs_float_sqnr_db": 39.9, "htp_vs_aimet_images_sqnr_db": 52.3}
        found |= {"float_ops_count": 0, "htp_residency": 1.0, "binary_mb": 9.62, "compile_s": 41.7, "emulator_s": 1.84}
    return found


def _interval(name: str, value: float, count: int) -> dict[str, float]:
    half = 1.96 * math.sqrt(value * (1 - value) / count)
    return {name: value, f"{name}_low": max(0.0, value - half), f"{name}_high": min(1.0, value + half)}


def curves(stage: str) -> dict[str, list[list[float]]]:
    """Noisy training curves of the kinds that stages log."""
    rng = random.Random(stage)

    def falling(start: float, end: float, points: int = 300) -> list[list[float]]:
        span = [(20 * i, end + (start - end) * math.exp(-i / 40)) for i in range(1, points + 1)]
        return [[step, value * math.exp(rng.gauss(0, 0.07))] for step, value in span]

    def rising(start: float, end: float, points: int = 12) -> list[list[float]]:
        return [[500 * i, end - (end - start) * math.exp(-i / 4) + rng.gauss(0, 0.006)] for i in range(points + 1)]

    if stage in {"prune", "quantize", "deploy"}:
        return {}
    if stage == "reward":
        rewards = {"reward_t2i": rising(0.42, 0.71, 80), "reward_edit": rising(0.35, 0.64, 80)}
        rewards |= {f"judged_{name}": points[::8] for name, points in rewards.items()}
        return rewards | {
            "reward_model_accuracy": rising(0.5, 0.94),
            "t2i": rising(0.934, 0.957),
            "edit": rising(0.851, 0.883),
            "kl": falling(0.001, 0.02),
        }
    found = {"loss": falling(1.4, 0.21), "t2i": rising(0.1, SCORES[stage][0])}
    if SCORES[stage][1]:
        found |= {
            "loss_t2i": falling(1.3, 0.19),
            "loss_edit": falling(1.5, 0.24),
            "edit": rising(0.1, SCORES[stage][1]),
        }
    return found


def extra(stage: str) -> dict[str, Any]:
    """What a stage's card tells beyond numbers."""
    if SCORES[stage][1]:
        numbers = metrics(stage)
        names = [*T2I_TASKS, *(f"edit_{task}" for task in EDIT_TASKS)]
        scores = {name: _interval("x", numbers[f"task_{name}"], 143) for name in names}
        rows = {name: {"value": s["x"], "low": s["x_low"], "high": s["x_high"], "n": 143} for name, s in scores.items()}
        return {"scenes": {"tasks": rows}}
    if stage == "prune":
        return {"evolution": evolution(), "kept": kept()}
    return {}


def evolution() -> list[dict[str, Any]]:
    """Parameters fall and the velocity error rises, step by step; two steps are refitted."""
    names = (
        "teacher",
        "depth",
        "width",
        "self_attention",
        "separable",
        "multi_query",
        "feed_forward",
        "qk_norm",
        "pair",
    )
    rows: list[dict[str, Any]] = []
    for i, name in enumerate(names):
        error = 0.03 * i**1.7
        row = {"step": name, "title": name.replace("_", " "), "parameters_m": 31.9 * 0.85**i, "macs_g": 1.3 * 0.87**i}
        fitted = 0.7 * error if name in {"depth", "separable", "pair"} else None
        rows.append(row | {"velocity_mse": error, "velocity_mse_fitted": fitted, "wall_s": 1.5})
    return rows


def kept() -> dict[str, dict[str, dict[str, Any]]]:
    """Two operators: widths, then feed-forward sizes on top of them."""
    widths = {"conv_in": (64, 64), "time_embedding.linear_1": (256, 256)}
    for block, (new, old) in enumerate(((64, 64), (128, 128), (192, 256))):
        for layer in range(2):
            widths[f"down_blocks.{block}.resnets.{layer}.conv1"] = (new - 32 * layer, old)
            widths[f"up_blocks.{2 - block}.resnets.{layer}.conv1"] = (new, old)
    widths["mid_block.resnets.0.conv1"] = (192, 256)
    rows = {
        name: {"kind": "channel", "units": old, "kept": new, "score_share": (new / old) ** 0.3}
        for name, (new, old) in widths.items()
    }
    heads = {"down_blocks.2.attentions.0.transformer_blocks.0.attn1": {"kind": "head", "units": 4, "kept": 3}}
    return {"narrow": rows, "attention": heads}


def write_samples(folder: Path, stage: str, per_task: int) -> None:
    """True renders, blurred by noise and sometimes replaced by a wrong one, as a worse or better network would."""
    folder.mkdir()
    t2i, edit = SCORES[stage]
    noise = np.random.default_rng(len(stage))
    rows = []
    for index, (kind, task, prompt, scene, source) in enumerate(_questions(per_task, edit is not None)):
        right = noise.random() < (t2i if kind == "t2i" else edit or 0.0)
        picture = render([scene])[0].astype(float) if right else render([_other(index)])[0].astype(float)
        strength = 70.0 if stage == "prune" else 4.0
        picture = np.clip(picture + noise.normal(0, strength, picture.shape), 0, 255).astype(np.uint8)
        _save(folder / f"{index:03d}.png", picture)
        if source is not None:
            _save(folder / f"{index:03d}_src.png", source)
        reason = "" if right else f"there is no {prompt.split()[-1]}"
        row = {"prompt": prompt, "task": task, "kind": kind, "file": f"{index:03d}.png", "ok": right, "reason": reason}
        rows.append(row | {"source": f"{index:03d}_src.png" if source is not None else None})
    (folder / "samples.json").write_text(json.dumps(rows, indent=1))


def _questions(per_task: int, edits: bool) -> list[tuple[str, str, str, Any, np.ndarray | None]]:
    rng = np.random.default_rng(0)
    found: list[tuple[str, str, str, Any, np.ndarray | None]] = []
    for task in T2I_TASKS * per_task:
        sample = sample_t2i(rng, task=task)
        found.append(("t2i", task, sample.prompt.text, sample.scene, None))
    for task in EDIT_TASKS * per_task if edits else ():
        edit = sample_edit(rng, task)
        found.append(("edit", task, edit.instruction.text, edit.target, render([edit.source])[0]))
    return found


def _other(index: int) -> Any:
    return sample_t2i(np.random.default_rng([index, 9])).scene


def _save(path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(path)
