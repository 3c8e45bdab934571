"""The scenes benchmark: GenEval's six tasks and ImgEdit's kinds, judged exactly by the verifier.

`t2i` is the mean accuracy of the six generation tasks, as GenEval's overall; `edit` the mean over the edit kinds of
the strict verdict (instruction carried out and everything else unchanged); `overall` the mean of the two, or `t2i`
alone for a system that cannot edit. Intervals are Wilson's at 95 %.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor

from compress.data.scenes.captions import T2I_TASKS, T2ISample, sample_t2i
from compress.data.scenes.edits import EDIT_TASKS, EditSample, sample_edit
from compress.data.scenes.verifier import Reading, Verdict, judge_edit, judge_t2i, read
from compress.data.scenes.world import CELL_PX, render
from compress.generate import generate
from compress.stages.context import Progress
from students.system import DiffusionSystem, SamplingDefaults, to_pixels, to_tensor
from teachers.base import VelocityModel

# prompts (tagged), sources or None, first index -> pictures (b, 3, h, w) in [-1, 1]
Generate = Callable[[Sequence[str], Tensor | None, int], Tensor]
BATCH = 100


@dataclass(frozen=True)
class Score:
    """A share of `n` with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, passed: int, n: int) -> Score:
        """Wilson's interval, which stays in [0, 1] and is sound near both ends."""
        if n == 0:
            return cls(math.nan, math.nan, math.nan, 0)
        z, share = 1.959964, passed / n
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return cls(share, max(0.0, centre - half), min(1.0, centre + half), n)  # rounding passes the ends

    @classmethod
    def mean(cls, scores: Sequence[Score]) -> Score:
        """The unweighted mean of independent scores; its half width from their variances."""
        value = sum(score.value for score in scores) / len(scores)
        half = math.sqrt(sum(((score.high - score.low) / 2) ** 2 for score in scores)) / len(scores)
        return cls(value, max(0.0, value - half), min(1.0, value + half), sum(score.n for score in scores))


@dataclass
class ScenesReport:
    """All scores of one checkpoint."""

    t2i: Score
    edit: Score | None
    overall: Score
    tasks: dict[str, Score] = field(default_factory=dict)
    parts: dict[str, Score] = field(default_factory=dict)
    untouched_psnr_db: float | None = None
    verdicts: dict[str, str] = field(default_factory=dict)  # of each task a digit a picture, 1 for accepted

    def to_json(self) -> str:
        """One line; `t2i`, `edit`, `overall` are numbers from 0 to 1, the rest holds the parts and intervals."""
        return json.dumps(self.to_dict())

    def to_dict(self) -> dict:
        scores = {"t2i": self.t2i, "edit": self.edit, "overall": self.overall}
        return {
            **{name: None if score is None else round(score.value, 5) for name, score in scores.items()},
            "untouched_psnr_db": self.untouched_psnr_db,
            "intervals": {name: [round(s.low, 5), round(s.high, 5)] for name, s in scores.items() if s is not None},
            "tasks": {name: asdict(score) for name, score in self.tasks.items()},
            "parts": {name: asdict(score) for name, score in self.parts.items()},
        }

    def metrics(self) -> dict[str, float]:
        """Flat numbers for a card."""
        values = {"t2i": self.t2i.value, "overall": self.overall.value}
        if self.edit is not None:
            values["edit"] = self.edit.value
        if self.untouched_psnr_db is not None:
            values["untouched_psnr_db"] = self.untouched_psnr_db
        scores = {"t2i": self.t2i, "edit": self.edit, "overall": self.overall}
        for name, score in scores.items():
            if score is not None:
                values[f"{name}_low"], values[f"{name}_high"] = score.low, score.high
        values |= {f"task_{name}": score.value for name, score in self.tasks.items()}
        return values | {f"part_{name}": score.value for name, score in self.parts.items()}


@dataclass(frozen=True)
class Judged:
    """One picture and what became of it, for looking at."""

    task: str
    text: str
    picture: np.ndarray
    source: np.ndarray | None
    verdict: Verdict


def t2i_samples(n: int, seed: int, held_out: bool = False) -> list[T2ISample]:
    """`n` prompts, the tasks in turn."""
    rng = np.random.default_rng([seed, 100 + held_out])
    tasks = ("colors", "color_attr") if held_out else T2I_TASKS
    return [sample_t2i(rng, held_out, tasks[index % len(tasks)]) for index in range(n)]


def edit_samples(n: int, seed: int) -> list[EditSample]:
    """`n` edits, the kinds in turn."""
    rng = np.random.default_rng([seed, 200])
    return [sample_edit(rng, EDIT_TASKS[index % len(EDIT_TASKS)]) for index in range(n)]


def judge_generation(make: Generate, samples: Sequence[T2ISample], progress: Progress | None = None) -> list[Judged]:
    """Makes and judges the pictures of captions."""
    judged: list[Judged] = []
    for start in range(0, len(samples), BATCH):
        part = samples[start : start + BATCH]
        pictures = to_pixels(make([sample.prompt.tagged for sample in part], None, start))
        for sample, picture, reading in zip(part, pictures, read(pictures), strict=True):
            verdict = judge_t2i(reading, sample.prompt)
            judged.append(Judged(sample.prompt.task, sample.prompt.text, picture, None, verdict))
        if progress:
            progress.advance(len(part))
    return judged


def judge_editing(
    make: Generate, samples: Sequence[EditSample], progress: Progress | None = None
) -> tuple[list[Judged], list[float]]:
    """Makes and judges edits; also the PSNR of each picture outside the touched cells, where that can be said."""
    judged: list[Judged] = []
    psnrs: list[float] = []
    for start in range(0, len(samples), BATCH):
        part = samples[start : start + BATCH]
        sources = render([sample.source for sample in part])
        made = make([sample.instruction.tagged for sample in part], to_tensor(sources), start)
        pictures = to_pixels(made)
        readings = zip(read(sources), read(pictures), strict=True)
        for sample, source, picture, (before, after) in zip(part, sources, pictures, readings, strict=True):
            verdict = judge_edit(before, after, sample.instruction)
            judged.append(Judged(sample.instruction.task, sample.instruction.text, picture, source, verdict))
            psnr = untouched_psnr_db(source, picture, before, after)
            if psnr is not None:
                psnrs.append(psnr)
        if progress:
            progress.advance(len(part))
    return judged, psnrs


def untouched_psnr_db(source: np.ndarray, picture: np.ndarray, before: Reading, after: Reading) -> float | None:
    """PSNR over the cells in which the same things stand before and after; None where the background changed."""
    if before.background != after.background:
        return None
    keep = np.ones(source.shape[:2], dtype=bool)
    changed = [t for t in before.things if not any(t.same(o) for o in after.things)]
    changed += [t for t in after.things if not any(t.same(o) for o in before.things)]
    for thing in changed:
        row, col = thing.cell
        keep[row * CELL_PX : (row + 1) * CELL_PX, col * CELL_PX : (col + 1) * CELL_PX] = False
    if not keep.any():
        return None
    error = ((source[keep].astype(np.float64) - picture[keep]) ** 2).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


def report(
    generation: Sequence[Judged], editing: Sequence[Judged], psnrs: Sequence[float], held_out: Sequence[Judged] = ()
) -> ScenesReport:
    """Scores from judged pictures."""
    tasks = {task: _score(generation, task) for task in T2I_TASKS}
    verdicts = {task: _digits(generation, task) for task in T2I_TASKS}
    t2i = Score.mean(list(tasks.values()))
    edit, parts = None, {}
    if editing:
        kinds = {f"edit_{task}": _score(editing, task) for task in EDIT_TASKS}
        edit = Score.mean(list(kinds.values()))
        tasks |= kinds
        verdicts |= {f"edit_{task}": _digits(editing, task) for task in EDIT_TASKS}
        for part in ("carried_out", "unchanged"):
            parts[part] = Score.of(sum(j.verdict.parts.get(part, False) for j in editing), len(editing))
    if held_out:
        parts["held_out"] = Score.of(sum(j.verdict.ok for j in held_out), len(held_out))
    overall = t2i if edit is None else Score.mean([t2i, edit])
    return ScenesReport(t2i, edit, overall, tasks, parts, float(np.mean(psnrs)) if psnrs else None, verdicts)


def _score(judged: Sequence[Judged], task: str) -> Score:
    mine = [one for one in judged if one.task == task]
    return Score.of(sum(one.verdict.ok for one in mine), len(mine))


def _digits(judged: Sequence[Judged], task: str) -> str:
    return "".join(str(int(one.verdict.ok)) for one in judged if one.task == task)


def generator_of(
    system: DiffusionSystem,
    seed: int,
    sampling: SamplingDefaults | None = None,
    denoiser: VelocityModel | None = None,
) -> Generate:
    """A system as the function that the benchmark calls."""

    def make(prompts: Sequence[str], sources_bchw: Tensor | None, first: int) -> Tensor:
        return generate(
            system, prompts, sources_bchw, sampling=sampling, denoiser=denoiser, seed=seed + first, batch_size=BATCH
        )

    return make


def evaluate(
    system: DiffusionSystem | Generate,
    n: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
    edits: bool | None = None,
    held_out: bool = True,
) -> ScenesReport:
    """Scores `n` prompts and, for a system that edits, `n` edits; the same ones for every system at one seed."""
    if isinstance(system, DiffusionSystem):
        edits = system.edits if edits is None else edits
        make = generator_of(system, seed)
    else:
        make, edits = system, True if edits is None else edits
    extra = max(1, n // 5) if held_out else 0
    if progress:
        progress.start(n * (1 + edits) + extra, "pictures", "scenes benchmark")
    generation = judge_generation(make, t2i_samples(n, seed), progress)
    editing, psnrs = judge_editing(make, edit_samples(n, seed), progress) if edits else ([], [])
    unseen = judge_generation(make, t2i_samples(extra, seed, held_out=True), progress) if extra else []
    return report(generation, editing, psnrs, unseen)


@torch.no_grad()
def quick_scores(system: DiffusionSystem, n: int, seed: int) -> dict[str, float]:
    """`t2i` and, where the system edits, `edit`, on a few pictures: for learning curves."""
    result = evaluate(system, n, seed, held_out=False)
    scores = {"t2i": result.t2i.value}
    return scores if result.edit is None else {**scores, "edit": result.edit.value}
