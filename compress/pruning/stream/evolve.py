"""From a teacher's file to a student's file, through the same operators as in memory, one tensor at a time.

Each operator says at once what it will make and what it decides (which layers, which channels), and computes a tensor
only when the writer asks for it: the request runs back through the chain of operators to the file. Nothing is computed
that does not go into the student, and no step in between is ever in memory or on disk as a whole.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from compress.config.prune import PAIR
from compress.cost import counted, skeleton
from compress.errors import Problem, UserError
from compress.pruning.evolution import PLAIN
from compress.pruning.stream.files import STEM, Checkpoint
from compress.pruning.stream.memory import return_large_blocks
from compress.pruning.stream.writer import DTYPES, write_safetensors
from compress.pruning.surgery import OPERATORS, Bench, Draft
from students.init import Ledger, Transplant, shapes
from students.spec import StudentSpec

UNET = "unet"
_PART = ".part"


@dataclass
class Streamed:
    """The student's spec and what can be told about its making. Rows are those of the evolution table, without
    velocity errors: no sample has gone through."""

    spec: StudentSpec
    rows: list[dict[str, Any]]
    ledger: Ledger
    report: dict[str, Any]


def teacher_spec(checkpoint: Checkpoint) -> StudentSpec:
    """What the network in the files is. UserError unless it is of the family and has exactly that network's tensors."""
    remedy = "Use a U-Net of Stable Diffusion's, SDXL's or DreamLite's kind, as diffusers saves it."
    try:
        spec = StudentSpec.from_config(checkpoint.config)
        wanted = shapes(skeleton(spec))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError.of(str(error), str(checkpoint.folder / "config.json"), remedy) from None
    found = {name: entry.shape for name, entry in checkpoint.entries.items()}
    problems = [
        (f"{len(names)} tensors {what}, first {names[0]}")
        for what, names in (
            ("are missing", sorted(set(wanted) - set(found))),
            ("are not of this network", sorted(set(found) - set(wanted))),
            ("have another shape than config.json says", [n for n in wanted if n in found and wanted[n] != found[n]]),
        )
        if names
    ]
    if problems:
        raise UserError(*(Problem(what, str(checkpoint.folder), remedy) for what in problems))
    return spec


def stream(
    checkpoint: Checkpoint,
    goal: StudentSpec,
    steps: Sequence[str],
    bench: Bench,
    out: Path,
    dtype: str = "bf16",
    on_tensor: Callable[[int, int], None] = lambda done, total: None,
) -> Streamed:
    """Carries the network in the files through `steps` and writes `out/unet`, which appears whole or not at all.

    Without batches on the bench, only criteria that look at weights alone can be used.
    """
    return_large_blocks()
    spec = teacher_spec(checkpoint)
    draft = Draft(spec, skeleton(spec), checkpoint.tensors())
    networks = [Network("teacher", "teacher", spec, 0.0)]
    transplants: list[Transplant] = []
    for name in steps:
        began = time.perf_counter()
        with torch.no_grad():
            draft, transplant = OPERATORS[name].apply(draft, goal, bench)
        transplants.append(transplant)
        networks.append(Network(name, OPERATORS[name].title, draft.spec, time.perf_counter() - began))
    if goal.plain:
        draft = draft.as_plain()
        networks.append(Network(PLAIN, "as UNet2DConditionModel", draft.spec, 0.0))
    else:
        networks.append(Network(PAIR, "target and condition side by side", draft.spec, 0.0))
    bench.release()
    rows = [network.row() for network in networks]
    began = time.perf_counter()
    with torch.no_grad():
        _write(draft, out, DTYPES[dtype], on_tensor)
    wall_s = time.perf_counter() - began
    rows[-1]["wall_s"] = wall_s
    ledger = Ledger(checkpoint.entries)
    for transplant in transplants:
        ledger.record(transplant)
        rows[1 + transplants.index(transplant)]["weight_error"] = _mean_error(transplant)
    return Streamed(draft.spec, rows, ledger, bench.report)


def _write(draft: Draft, out: Path, dtype: torch.dtype, on_tensor: Callable[[int, int], None]) -> None:
    assert draft.streamed is not None
    part = out / f"{_PART}-{UNET}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    wanted = shapes(draft.unet)
    done = 0

    def count(name: str) -> None:
        nonlocal done
        done += 1
        on_tensor(done, len(wanted))

    try:
        write_safetensors(part / f"{STEM}.safetensors", wanted, draft.streamed, dtype, count)
        (part / "config.json").write_text(json.dumps(_config(draft), indent=2, sort_keys=True) + "\n")
        os.rename(part, out / UNET)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _config(draft: Draft) -> Mapping[str, Any]:
    """What diffusers itself would write."""
    config = json.loads(draft.unet.to_json_string())  # type: ignore[operator]
    config.pop("_name_or_path", None)
    return config


@dataclass(frozen=True)
class Network:
    """One network on the way, or at its end the student on pairs."""

    step: str
    title: str
    spec: StudentSpec
    wall_s: float

    def row(self) -> dict[str, Any]:
        """macs_g is one forward on the input that the network takes at its own size, with 77 text tokens."""
        side = self.spec.sample_size or 128
        costs = counted(self.spec, side, side * (1 + (self.step == PAIR)), 77).metrics()
        missing = {"velocity_mse": None, "velocity_mse_fitted": None}
        return {"step": self.step, "title": self.title, **costs, **missing, "wall_s": self.wall_s}


def _mean_error(transplant: Transplant) -> float | None:
    """Mean relative error of the tensors that an operator approximated; None where it approximated none."""
    steps = [step for _, step in transplant.origins.values() if step is not None]
    errors = [step.relative_error for step in steps if step.relative_error]
    return sum(errors) / len(errors) if errors else None
