"""Reads an artefact's card.json and samples into a record. The only file that knows how cards spell things."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from reports.layers import before, in_order
from reports.record import HEADLINES, Kept, Record, ReportError, Sample, Score, Verdicts

CARD = "card.json"
SAMPLING = "sampling.json"  # beside it: how a checkpoint is sampled
_REQUIRED = {"name", "stage", "key"}
_KNOWN = _REQUIRED | {
    *("code_version", "parents", "content_hash", "files", "spec", "recipe", "metrics", "curves", "versions"),
    *("git_commit", "wall_s", "peak_rss_gb", "created_utc", "machine", "reused_from", "extra"),
}
_EDIT = "edit_"  # how the benchmark marks editing tasks among its task names


def read_record(folder: Path, outside: bool = False) -> Record:
    """The record of the artefact in `folder`: a stage of the run, unless it lies `outside`, as the teacher does.

    Raises ReportError if its card is missing, damaged or of another version.
    """
    card = _read_card(folder)
    number, _, label = folder.name.partition("-")
    metrics = {name: float(value) for name, value in card.get("metrics", {}).items() if value is not None}
    extra = card.get("extra", {})
    scenes = extra.get("scenes", {})
    tasks = _tasks(metrics, scenes)
    return Record(
        folder=folder,
        label=card["stage"] if outside else label,
        number="" if outside else number,
        stage=card["stage"],
        key=card["key"],
        code_version=int(card.get("code_version", 1)),
        content_hash=card.get("content_hash", ""),
        parents=tuple(card.get("parents", [])),
        parameters_m=metrics.get("parameters_m"),
        macs_g=metrics.get("macs_g"),
        size_mb=metrics.get("binary_mb", metrics.get("size_mb", _weights_mb(card.get("files", {})))),
        scores=_headlines(metrics, tasks),
        tasks=tasks,
        steps=_steps(folder, extra),
        parts=_parts(metrics),
        metrics=metrics,
        curves={name: _curve(points) for name, points in card.get("curves", {}).items()},
        evolution=[row for row in extra.get("evolution", []) if row.get("step") is not None],
        kept=_kept(extra.get("kept", {}), extra.get("depth", {})),
        samples=_samples(folder / "samples"),
        verdicts=read_verdicts(folder),
        wall_s=float(card.get("wall_s") or 0.0),
        peak_rss_gb=float(card.get("peak_rss_gb") or 0.0),
        created_utc=card.get("created_utc", ""),
        machine=card.get("machine", {}),
        git_commit=card.get("git_commit"),
        versions=card.get("versions", {}),
        reused_from=card.get("reused_from"),
        recipe=card.get("recipe", {}),
        spec=card.get("spec", {}),
        extra={name: value for name, value in extra.items() if name not in {"evolution", "kept", "scenes"}},
    )


def read_json(path: Path) -> Any:
    """The JSON value in a file; ReportError if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"{path}: cannot be read ({error.strerror}). Run the stage again.") from None
    except ValueError as error:
        raise ReportError(f"{path}: not JSON ({error}). Delete {path.parent} and run again.") from None


def _read_card(folder: Path) -> dict[str, Any]:
    path = folder / CARD
    card = read_json(path)
    if not isinstance(card, dict) or not set(card) >= _REQUIRED:
        raise ReportError(f"{path}: a card has at least {', '.join(sorted(_REQUIRED))}. Run the stage again.")
    if unknown := sorted(set(card) - _KNOWN):
        raise ReportError(f"{path}: unknown fields {', '.join(unknown)}. Report it with the version that wrote it.")
    return card


def _weights_mb(files: dict[str, dict[str, Any]]) -> float | None:
    weights = [entry["bytes"] for name, entry in files.items() if name.startswith("unet/") and "safetensors" in name]
    return sum(weights) / 1e6 if weights else None


def _headlines(metrics: dict[str, float], tasks: dict[tuple[str, str], Score]) -> dict[str, Score]:
    """t2i, edit and overall with their bounds; a task's sample count is known, so theirs are the sums."""
    found = {}
    for name in HEADLINES:
        if name not in metrics and f"quick_{name}" in metrics:
            found[name] = Score(metrics[f"quick_{name}"], rough=True)
        elif name in metrics:
            counts = [score.count for (kind, _), score in tasks.items() if score.count and name in (kind, "overall")]
            low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
            found[name] = Score(metrics[name], low, high, sum(counts) or None)
    return found


def _tasks(metrics: dict[str, float], scenes: dict[str, Any]) -> dict[tuple[str, str], Score]:
    """Each task's score: with interval and count from extra["scenes"], else the bare number from the metrics."""
    found = {_task(name.removeprefix("task_")): Score(v) for name, v in metrics.items() if name.startswith("task_")}
    for name, raw in scenes.get("tasks", {}).items():
        if raw.get("value") is not None:
            found[_task(name)] = Score(float(raw["value"]), raw.get("low"), raw.get("high"), raw.get("n"))
    return found


def _task(name: str) -> tuple[str, str]:
    return ("edit", name.removeprefix(_EDIT)) if name.startswith(_EDIT) else ("t2i", name)


def _parts(metrics: dict[str, float]) -> dict[str, float]:
    parts = {name.removeprefix("part_"): value for name, value in metrics.items() if name.startswith("part_")}
    if "untouched_psnr_db" in metrics:
        parts["untouched_psnr_db"] = metrics["untouched_psnr_db"]
    return parts


def _steps(folder: Path, extra: dict[str, Any]) -> int | None:
    """Sampling steps a checkpoint is meant for: as its card says, or its sampling.json."""
    if extra.get("sampling_steps"):
        return int(extra["sampling_steps"])
    path = folder / SAMPLING
    steps = read_json(path).get("steps") if path.is_file() else None
    return int(steps) if steps else None


def _curve(points: list[list[float | None]]) -> list[tuple[float, float]]:
    return [(float(step), float(value)) for step, value in points if step is not None and value is not None]


def _kept(raw: dict[str, Any], depth: dict[str, list[int]]) -> dict[str, Kept]:
    """The teacher's layer group -> what is left of it, in the network's order.

    Operators follow one another, so units count before the first, kept after the last of them, and the shares of
    importance multiply. What a later operator alone names, and leaves whole, is of a layer that was made on the way.
    """
    found: dict[str, Kept] = {}
    for turn, groups in enumerate(raw.values()):
        for name, row in groups.items():
            group, units, share = before(name, depth), int(row["units"]), row.get("score_share")
            if earlier := found.get(group):
                units = earlier.units
                share = earlier.score_share if share is None else share * (earlier.score_share or 1.0)
            elif turn and row["kept"] == row["units"]:
                continue
            found[group] = Kept(str(row.get("kind", "")), int(row["kept"]), units, share)
    return {group: found[group] for group in in_order(found)}


def read_verdicts(folder: Path) -> tuple[Verdicts, ...]:
    """What samples/verdicts.csv beside a card tells; nothing where there is none, as of artefacts made before it."""
    path = folder / "samples" / "verdicts.csv"
    if not path.is_file():
        return ()
    found: dict[str, Verdicts] = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                form, digits = row["form"], row["verdicts"]
                if set(digits) - {"0", "1"}:
                    raise ValueError(f"verdicts {digits[:20]!r}")
                mine = found.setdefault(form, Verdicts(form, int(row["seed"]), int(row["pictures"]), {}))
                mine.tasks[_task(row["task"])] = digits
    except (KeyError, TypeError, ValueError) as error:
        raise ReportError(f"{path}: no table of verdicts ({error!r}). Run the stage again.") from None
    return tuple(found.values())


def _samples(folder: Path) -> list[Sample]:
    index = folder / "samples.json"
    if not index.is_file():
        return []
    samples = [
        Sample(
            kind=row["kind"],
            task=row["task"],
            prompt=row["prompt"],
            file=folder / row["file"],
            source=folder / row["source"] if row.get("source") else None,
            ok=bool(row["ok"]),
            reason=row.get("reason", ""),
        )
        for row in read_json(index)
    ]
    return [sample for sample in samples if sample.file.is_file()]
