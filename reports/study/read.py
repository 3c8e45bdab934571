"""Reads and checks study.json. The only file that knows how it spells things."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from reports.cards import read_json
from reports.record import ReportError
from reports.study.record import Ladder, Objective, Parameter, StageTime, Study, Trial, Value

STUDY = "study.json"
STATES = ("complete", "pruned", "fail", "running", "waiting")
KINDS = ("float", "int", "categorical")
_REMEDY = "Run `pocketdiff sweep` on the same study again: it repeats no trial, and writes it anew."


def read_study(folder: Path) -> Study:
    """The study in `folder`/study.json; ReportError names the first field that is missing or wrong."""
    path = Path(folder) / STUDY
    raw = _mapping(read_json(path), str(path))
    objectives = tuple(
        _objective(row, f"{path}: objectives[{i}]") for i, row in enumerate(_rows(raw, "objectives", path))
    )
    parameters = tuple(
        _parameter(row, f"{path}: parameters[{i}]") for i, row in enumerate(_rows(raw, "parameters", path))
    )
    trials = [_trial(row, len(objectives), f"{path}: trials[{i}]") for i, row in enumerate(_rows(raw, "trials", path))]
    if not objectives:
        raise ReportError(f"{path}: there are no objectives. {_REMEDY}")
    if len({trial.number for trial in trials}) < len(trials):
        raise ReportError(f"{path}: two trials have the same number. {_REMEDY}")
    grid = _grid(raw.get("grid"), trials, path)
    return Study(
        name=str(raw.get("name") or Path(folder).resolve().name),
        description=str(raw.get("description", "")),
        folder=Path(folder),
        objectives=objectives,
        parameters=parameters,
        trials=tuple(sorted(trials, key=lambda trial: trial.number)),
        importance=_mapping(raw.get("importance") or {}, f"{path}: importance"),
        grid=grid,
        replicate=str(raw.get("replicate") or "seed"),
        ladder=_ladder(raw.get("ladder"), f"{path}: ladder"),
    )


def seconds_of(moment_utc: str) -> float | None:
    """An ISO time as seconds since 1970; None for an empty one or one that cannot be read."""
    try:
        return datetime.fromisoformat(moment_utc).timestamp() if moment_utc else None
    except ValueError:
        return None


def _grid(raw: Any, trials: Sequence[Trial], path: Path) -> dict[str, tuple[Value, ...]] | None:
    """The grid, in which every trial with values has its place; None where there is none."""
    if raw is None:
        return None
    grid = {name: tuple(_rows(raw, name, path)) for name in _mapping(raw, f"{path}: grid")}
    for trial in trials:
        for name, values in grid.items():
            if trial.values and trial.params.get(name) not in values:
                where = f"{path}: trial {trial.number}: {name}"
                raise ReportError(f"{where} is {trial.params.get(name)!r}, none of the grid's values. {_REMEDY}")
    return grid


def _ladder(raw: Any, where: str) -> Ladder | None:
    if raw is None:
        return None
    raw = _mapping(raw, where)
    rungs = tuple(tuple(_objective(row, f"{where}.rungs") for row in rung) for rung in _needed(raw, "rungs", where))
    factor = int(_number(_needed(raw, "factor", where), f"{where}.factor"))
    return Ladder(rungs=rungs, factor=factor, unselected=int(raw.get("unselected") or 0))


def _objective(raw: Any, where: str) -> Objective:
    raw = _mapping(raw, where)
    worst = raw.get("worst")
    return Objective(
        label=str(_needed(raw, "label", where)),
        metric=str(raw.get("metric", "")),
        stage=str(raw.get("stage", "")),
        maximize=bool(raw.get("maximize", False)),
        worst=None if worst is None else _number(worst, f"{where}.worst"),
    )


def _parameter(raw: Any, where: str) -> Parameter:
    raw = _mapping(raw, where)
    kind = _one_of(_needed(raw, "kind", where), KINDS, f"{where}.kind")
    name = str(_needed(raw, "name", where))
    if kind == "categorical":
        return Parameter(name=name, kind=kind, choices=tuple(_needed(raw, "choices", where)))
    low, high = (_number(_needed(raw, bound, where), f"{where}.{bound}") for bound in ("low", "high"))
    return Parameter(name=name, kind=kind, low=low, high=high, log=bool(raw.get("log", False)))


def _trial(raw: Any, objectives: int, where: str) -> Trial:
    raw = _mapping(raw, where)
    values = raw.get("values") or []
    if len(values) not in (0, objectives):
        raise ReportError(f"{where}.values has {len(values)} entries for {objectives} objectives. {_REMEDY}")
    params: Mapping[str, Value] = _mapping(_needed(raw, "params", where), f"{where}.params")
    wall_s = raw.get("wall_s")
    return Trial(
        number=int(_number(_needed(raw, "number", where), f"{where}.number")),
        state=_one_of(_needed(raw, "state", where), STATES, f"{where}.state"),
        params=params,
        values=tuple(_finite(value, f"{where}.values") for value in values),
        constraints=tuple(_limit(value, f"{where}.constraints") for value in raw.get("constraints") or []),
        folder=str(raw.get("folder") or ""),
        worker=str(raw.get("worker") or ""),
        reason=str(raw.get("reason") or ""),
        started_utc=str(raw.get("started_utc") or ""),
        finished_utc=str(raw.get("finished_utc") or ""),
        wall_s=None if wall_s is None else _number(wall_s, f"{where}.wall_s"),
        intermediate=_curve(raw.get("intermediate") or [], f"{where}.intermediate"),
        stages=tuple(_stage(row, f"{where}.stages[{i}]") for i, row in enumerate(raw.get("stages") or [])),
        rungs=tuple(tuple(_finite(v, f"{where}.rungs") for v in rung) for rung in raw.get("rungs") or []),
    )


def _limit(value: Any, where: str) -> float:
    """A constraint; what is not finite is stored as null and counts as broken."""
    found = _finite(value, where)
    return math.inf if found is None else found


def _curve(points: Any, where: str) -> tuple[tuple[float, float], ...]:
    pairs = [(_finite(step, where), _finite(value, where)) for step, value in points]
    return tuple((step, value) for step, value in pairs if step is not None and value is not None)


def _stage(raw: Any, where: str) -> StageTime:
    raw = _mapping(raw, where)
    wall_s = _number(raw.get("wall_s") or 0.0, f"{where}.wall_s")
    return StageTime(str(_needed(raw, "name", where)), str(raw.get("key", "")), str(raw.get("action", "run")), wall_s)


def _mapping(raw: Any, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ReportError(f"{where} is not an object. {_REMEDY}")
    return raw


def _rows(raw: Mapping[str, Any], name: str, path: Path) -> list[Any]:
    rows = _needed(raw, name, str(path))
    if not isinstance(rows, list):
        raise ReportError(f"{path}: {name} is not a list. {_REMEDY}")
    return rows


def _needed(raw: Mapping[str, Any], name: str, where: str) -> Any:
    if raw.get(name) is None:
        raise ReportError(f"{where}: {name} is missing. {_REMEDY}")
    return raw[name]


def _one_of(value: Any, known: tuple[str, ...], where: str) -> str:
    if value not in known:
        raise ReportError(f"{where} is {value!r}, not one of {', '.join(known)}. {_REMEDY}")
    return str(value)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ReportError(f"{where} is {value!r}, not a finite number. {_REMEDY}")
    return value


def _finite(value: Any, where: str) -> float | None:
    """A measured value; None where it is not finite, for a trial may end so and the study goes on."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return _number(value, where)
