"""A study as the compact JSON that the page's script draws from: columns, not rows; six digits; each name once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

from reports.study.front import MOST_OBJECTIVES, coverage, unit_box
from reports.study.pictures import Shown
from reports.study.read import STATES, seconds_of
from reports.study.record import Parameter, Study, Trial, Value
from reports.svg import thin

CURVE_POINTS = 40


def payload(study: Study, shown: Shown) -> dict[str, Any]:
    """Everything the figures show; `extra` holds what only trials of the front have."""
    trials = study.trials
    begun = [seconds_of(trial.started_utc) for trial in trials]
    origin = min((second for second in begun if second is not None), default=0.0)
    workers = sorted({trial.worker for trial in trials})
    stages = list(dict.fromkeys(stage.name for trial in trials for stage in trial.stages))
    best = {trial.number for trial in study.front}
    return {
        "objectives": [{"label": o.label, "maximize": o.maximize} for o in study.objectives],
        "parameters": [_parameter(p) for p in study.parameters],
        "importance": {label: {n: _round(v) for n, v in row.items()} for label, row in study.importance.items()},
        "workers": workers,
        "stages": stages,
        "states": STATES,
        "number": [trial.number for trial in trials],
        "state": [STATES.index(trial.state) for trial in trials],
        "feasible": [int(trial.feasible) for trial in trials],
        "front": [int(trial.number in best) for trial in trials],
        "params": [[_param(p, trial) for trial in trials] for p in study.parameters],
        "values": [[_objective(trial, i) for trial in trials] for i in range(len(study.objectives))],
        "start_s": [None if second is None else _round(second - origin, 7) for second in begun],
        "wall_s": [_span(trial) for trial in trials],
        "worker": [workers.index(trial.worker) for trial in trials],
        "spent": [[[stages.index(s.name), int(s.reused), _round(s.wall_s)] for s in t.stages] for t in trials],
        "curve": [[[_round(x), _round(y)] for x, y in thin(t.intermediate, CURVE_POINTS)] for t in trials],
        "folder": [trial.folder for trial in trials],
        "reason": {str(trial.number): trial.reason for trial in trials if trial.reason},
        "covered": covered(study),
        "extra": {str(t.number): _extra(study, t, shown) for t in study.front},
    }


def covered(study: Study) -> list[tuple[int, float]]:
    """(trial, share of the box between each objective's best and `reference` that is dominated by then); for 2 or 3,
    and not of a grid, whose trials come in no order. What lies beyond the corner dominates nothing."""
    if study.grid is not None or not study.comparable or not 2 <= len(study.objectives) <= MOST_OBJECTIVES:
        return []
    ends = [None if o.worst is None else -o.worst if o.maximize else o.worst for o in study.objectives]
    points = unit_box([study.losses(trial) for trial in study.comparable], ends)
    history = coverage(points, (1.0,) * len(study.objectives))
    return [(t.number, _round(share)) for t, share in zip(study.comparable, history, strict=True)]


def embedded(value: Any) -> Markup:
    """JSON that can stand inside a script element, whatever the texts in it hold."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028"))


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "choices": [str(choice) for choice in parameter.choices],
        "log": parameter.log,
        "whole": parameter.kind == "int",
    }


def _extra(study: Study, trial: Trial, shown: Shown) -> dict[str, Any]:
    page = f"{trial.folder}/report.html"
    found = {
        "pictures": shown.thumbnails.get(trial.number),
        "stages": shown.stages.get(trial.number),
        "page": page if trial.folder and (study.folder / page).is_file() else None,
    }
    return {name: value for name, value in found.items() if value}


def _span(trial: Trial) -> float | None:
    """Seconds from start to end: as recorded, else from the two times."""
    if trial.wall_s is not None:
        return _round(trial.wall_s)
    start, end = seconds_of(trial.started_utc), seconds_of(trial.finished_utc)
    return _round(end - start) if start is not None and end is not None else None


def _param(parameter: Parameter, trial: Trial) -> Value:
    """A number, or a choice as text; None where the space did not ask."""
    if parameter.name not in trial.params:
        return None
    value = trial.params[parameter.name]
    return str(value) if parameter.kind == "categorical" or not isinstance(value, int | float) else _round(value)


def _objective(trial: Trial, index: int) -> float | None:
    value = trial.values[index] if trial.judged else None
    return None if value is None else _round(value)


def _round(value: float, digits: int = 6) -> float:
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() else rounded


def worst_of(values: Iterable[float], maximize: bool) -> float:
    """The worst of an objective's values."""
    return min(values) if maximize else max(values)


def reference(study: Study) -> Sequence[float]:
    """The corner that closes the box of `covered`: each objective's `worst`, else the worst of comparable trials."""
    columns = zip(*(trial.values for trial in study.comparable), strict=True)
    pairs = zip(columns, study.objectives, strict=True)
    return [
        worst_of([v for v in column if v is not None], o.maximize) if o.worst is None else o.worst
        for column, o in pairs
    ]
