"""Calibration samples for a teacher that others trained: `calibration.safetensors` in its folder, beside `unet/`.

    latents  (n, c, h, w)  clean, scaled as the U-Net takes them
    tokens   (n, t, d)     the text encoder's hidden states (SDXL: both encoders', side by side, d = 2048)
    pooled   (n, p)        the pooled text, for networks that read one
    sources  (n, c, h, w)  of edits, for networks that take (target | condition); zeros where a sample only generates

Shape suffixes: b batch, c latent channels, h and w latent rows and columns.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from safetensors import SafetensorError, safe_open
from torch import Tensor

from compress.errors import Problem, UserError
from compress.pruning.calibration import Noised, noised, rows_of
from students.spec import StudentSpec
from teachers.base import Condition

FILE = "calibration.safetensors"
_REMEDY = "See compress/pruning/stream/samples.py for what it holds."
# SDXL's noise, for folders that come without a scheduler
_SDXL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "epsilon"}


def read_samples(folder: Path, spec: StudentSpec, paired: bool, count: int, seed: int) -> list[Noised]:
    """The first `count` samples, noised, one a batch: at full size a single one fills the memory.

    Networks that take (target | condition), `paired`, and those with a flow-matching scheduler beside them are asked
    for eps - x0 on the straight path, others for what their scheduler says: epsilon, as SDXL, or v.
    Raises UserError for a missing or damaged file, missing tensors, and shapes that the network does not take.
    """
    tensors = _read(folder / FILE, count)
    if problems := _problems(tensors, spec, str(folder / FILE)):
        raise UserError(*problems)
    condition = Condition(tensors["tokens"], pooled_bd=tensors.get("pooled"), source_bchw=tensors.get("sources"))
    said = _said(folder)
    if paired or str(said.get("_class_name", "")).startswith("FlowMatch"):
        (whole,) = noised([(tensors["latents"], condition)], seed, paired)  # levels are spread over all samples
    else:
        whole = _diffused(tensors["latents"], condition, _scheduler(said), seed)
    return [rows_of(whole, slice(row, row + 1)) for row in range(len(condition))]


def _read(path: Path, count: int) -> dict[str, Tensor]:
    if not path.is_file():
        remedy = f"Put {FILE} there, or use a criterion that looks at weights alone. {_REMEDY}"
        raise UserError.of("there are no calibration samples", str(path), remedy)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_slice(name)[:count].float() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError.of(f"it cannot be read ({error})", str(path), "Make or copy it again.") from None


def _problems(tensors: dict[str, Tensor], spec: StudentSpec, where: str) -> list[Problem]:
    cell = 2 ** (spec.stages - 1)
    wanted: dict[str, tuple[int | None, ...]] = {
        "latents": (None, spec.in_channels, None, None),
        "tokens": (None, None, spec.text_dim or spec.cross_dim),
    }
    if spec.pooled_dim:
        wanted["pooled"] = (None, spec.pooled_dim)
    if "sources" in tensors:
        wanted["sources"] = wanted["latents"]
    found = []
    for name, shape in wanted.items():
        told = "(" + ", ".join("any" if extent is None else str(extent) for extent in shape) + ")"
        if name not in tensors:
            found.append(Problem(f"it holds no {name}, of shape {told}", where, _REMEDY))
            continue
        have = tuple(tensors[name].shape)
        fits = len(have) == len(shape) and all(e in (None, h) for e, h in zip(shape, have, strict=True))
        if not fits or not have[0] or have[0] != len(tensors.get("latents", tensors[name])):
            found.append(Problem(f"{name} has shape {have}, the network takes {told}", where, _REMEDY))
        elif name == "latents" and (have[2] % cell or have[3] % cell):
            what = f"latents are {have[2]} x {have[3]}, which {spec.stages} stages cannot halve"
            found.append(Problem(what, where, f"Use multiples of {cell}."))
        elif not tensors[name].isfinite().all():
            found.append(Problem(f"{name} has entries that are not finite", where, "Make it again."))
    return found


def _said(folder: Path) -> dict[str, Any]:
    """What the folder says of its scheduler; SDXL's noise where it says nothing."""
    path = folder / "scheduler" / "scheduler_config.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else _SDXL
    except ValueError as error:
        raise UserError.of(f"it is not JSON ({error})", str(path), "Download or copy the file again.") from None
    return found


def _scheduler(said: dict[str, Any]) -> DDPMScheduler:
    names = (*_SDXL, "num_train_timesteps", "trained_betas")
    return DDPMScheduler(**{name: said[name] for name in names if name in said})


def _diffused(x0_bchw: Tensor, condition: Condition, scheduler: DDPMScheduler, seed: int) -> Noised:
    """x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps (arXiv 2006.11239, eq. 4), timesteps stratified over the samples.
    What the network is asked for stands in the place of the velocity."""
    generator = torch.Generator().manual_seed(seed)
    steps, count = scheduler.config.num_train_timesteps, len(x0_bchw)
    cell_b = torch.randperm(count, generator=generator)
    share_b = (cell_b + torch.rand(count, generator=generator)) / count
    step_b = (share_b * steps).long().clamp_max(steps - 1)
    eps_bchw = torch.randn(x0_bchw.shape, generator=generator)
    x_bchw = scheduler.add_noise(x0_bchw, eps_bchw, step_b)
    v = scheduler.config.prediction_type == "v_prediction"
    target_bchw = scheduler.get_velocity(x0_bchw, eps_bchw, step_b) if v else eps_bchw
    return Noised(x_bchw, step_b / 1000, target_bchw, condition)


def in_dtype(batches: list[Noised], dtype: torch.dtype) -> list[Noised]:
    """What enters the network in `dtype`; noise levels and targets as they are."""
    return [
        Noised(b.x_bchw.to(dtype), b.sigma_b, b.velocity_bchw, b.condition.to(dtype=dtype), b.paired) for b in batches
    ]


def write_random_samples(folder: Path, spec: StudentSpec, count: int, side: int, tokens: int = 77) -> None:
    """Samples without meaning, in the network's shapes: for measuring, and for tests."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    tensors = {
        "latents": draw(count, spec.in_channels, side, side),
        "tokens": draw(count, tokens, spec.text_dim or spec.cross_dim),
    }
    if spec.pooled_dim:
        tensors["pooled"] = draw(count, spec.pooled_dim)
    save_file(tensors, folder / FILE)
