"""What the run folders of a study's best trials show: thumbnails, the figures of each stage, and a grid of pictures."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from reports import grid
from reports.collect import Run, collect
from reports.record import HEADLINES, Record, ReportError, Sample
from reports.sheet import UNREADABLE
from reports.study.record import Study, Trial

SIDE_PX = 64
PER_TRIAL = 4  # thumbnails
MOST_TRIALS = 60  # with thumbnails; those of a longer front are spread over it
GRID_TRIALS = 6
THUMBNAILS_BYTES, GRID_BYTES = 1_500_000, 2_000_000  # base64 adds a third, and the page has to stay below 8 MB


@dataclass(frozen=True)
class Shown:
    """Per trial number: thumbnails and stages as the page's script reads them. `notes` name damaged folders."""

    thumbnails: Mapping[int, list[dict[str, Any]]] = field(default_factory=dict)
    stages: Mapping[int, list[dict[str, Any]]] = field(default_factory=dict)
    grid: grid.Grid = field(default_factory=lambda: grid.Grid((), (), 0))
    notes: tuple[str, ...] = ()


def look(study: Study) -> Shown:
    """Reads the front's run folders, as far as they are still there."""
    runs: dict[int, Run] = {}
    notes = []
    for trial in spread(study.front, MOST_TRIALS):
        folder = study.folder / trial.folder
        if trial.folder and folder.is_dir():
            try:
                runs[trial.number] = collect(folder)
            except ReportError as error:
                notes.append(f"Trial {trial.number} has no pictures: {error}")
    judged = {number: record for number, run in runs.items() if (record := last_with_samples(run))}
    columns = [replace(judged[t.number], label=f"trial {t.number}") for t in _with(study.front, judged)]
    thumbnails, unread = _thumbnails({number: record.samples for number, record in judged.items()})
    return Shown(
        thumbnails=thumbnails,
        stages={number: [_stage(record) for record in run.stages] for number, run in runs.items()},
        grid=grid.build(columns, GRID_BYTES),
        notes=(*notes, *unread),
    )


def spread(trials: Sequence[Trial], most: int) -> list[Trial]:
    """At most `most` of them, evenly, both ends included."""
    if len(trials) <= most:
        return list(trials)
    return [trials[round(index * (len(trials) - 1) / (most - 1))] for index in range(most)]


def last_with_samples(run: Run) -> Record | None:
    """The last stage that drew pictures, or None."""
    return next((record for record in reversed(run.stages) if record.samples), None)


def _with(trials: Sequence[Trial], judged: Mapping[int, Record]) -> list[Trial]:
    return spread([trial for trial in trials if trial.number in judged], GRID_TRIALS)


def _stage(record: Record) -> dict[str, Any]:
    scores = {name: record.scores[name].value for name in HEADLINES if name in record.scores}
    size = {"parameters (M)": record.parameters_m, "velocity MSE": record.metrics.get("velocity_mse")}
    return {"name": record.label} | {name: float(f"{v:.5g}") for name, v in (size | scores).items() if v is not None}


def _thumbnails(samples: Mapping[int, Sequence[Sample]]) -> tuple[dict[int, list[dict[str, Any]]], list[str]]:
    """The same few questions for every trial, one a task, until the budget is spent; and what could not be read."""
    asked = Counter(sample.question for row in samples.values() for sample in row)
    per_task: dict[tuple[str, str], grid.Question] = {}
    for question, _ in asked.most_common():
        per_task.setdefault(question[:2], question)
    kinds = [[q for q in per_task.values() if (q[0] == "t2i") == generated] for generated in (True, False)]
    edits = min(len(kinds[1]), PER_TRIAL // 2)
    questions = kinds[0][: PER_TRIAL - edits] + kinds[1][:edits]
    found: dict[int, list[dict[str, Any]]] = {}
    notes: list[str] = []
    spent = 0
    for number, row in samples.items():
        answers = {sample.question: sample for sample in row}
        chosen = [answers[question] for question in questions if question in answers]
        pictures = []
        for s in chosen:
            try:
                pictures.append({"src": thumbnail(s.file), "prompt": s.prompt, "ok": s.ok, "reason": s.reason})
            except UNREADABLE as error:
                notes.append(f"Trial {number}: {s.file.name} cannot be read: {error}")
        spent += sum(len(str(picture["src"])) for picture in pictures)
        if spent > THUMBNAILS_BYTES:
            break
        found[number] = pictures
    return found, notes


def thumbnail(path: Path, side_px: int = SIDE_PX) -> str:
    """The picture at most `side_px` wide and high as a data URI; WebP, about a tenth of a PNG."""
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=82, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
