"""A study as the plain record that reports and `gc` read (`study.json`), without Optuna or its storage.

A sweep writes it before its first trial, after each one, and when it ends.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.artifact import CARD, write_json
from compress.locks import locked
from compress.plan import Action

if TYPE_CHECKING:
    import optuna

    from compress.sweep import Ladder, Objective, Sweep

STUDY, LOCK = "study.json", ".study.lock"
# User attributes that a trial may have; reports know the first as the trial's run folder, within the sweep's.
FOLDER, WORKER, REASON, STAGES, CLIMB, BEAT = "folder", "worker", "reason", "stages", "ladder", "beat"
IMPORTANCE_TRIALS = 20  # complete ones; with fewer, an estimate of what matters is mostly chance


def write_study_record(study: optuna.Study, sweep: Sweep, folder: Path, storage: str = "journal") -> Path:
    """Replaces `folder`/study.json, whole or not at all; returns its path.

    Workers take turns from reading the study to writing it, so that none puts an older state over a newer one.
    """
    path = Path(folder) / STUDY
    with locked(path.with_name(LOCK)):
        write_json(path, study_record(study, sweep, folder) | {"storage": storage})
    return path


def study_record(study: optuna.Study, sweep: Sweep, folder: Path | None = None) -> dict[str, Any]:
    """Name, objectives, constraints, grid, parameters, trials and importances of `study` as JSON values.

    How a trial's stages came about is its user attribute, what they took is what its run folder within `folder` noted.
    What is not finite is None. A grid asks everything equally often, so it has no importances.
    """
    trials = study.get_trials(deepcopy=False)
    grid = None if sweep.grid is None else {name: list(values) for name, values in sweep.grid.items()}
    return {
        "name": sweep.name,
        "description": sweep.description,
        "objectives": [_objective(objective) for objective in sweep.objectives],
        "constraints": [{"label": limit.label, "at_most": limit.at_most} for limit in sweep.constraints],
        "grid": grid,
        "replicate": sweep.replicate,
        "ladder": None if sweep.ladder is None else _ladder(sweep.ladder),
        "parameters": parameters(trials),
        "trials": [_trial(trial, folder) for trial in trials],
        "importance": importance(study, sweep.objectives) if grid is None else {},
    }


def _ladder(ladder: Ladder) -> dict[str, Any]:
    rungs = [[_objective(objective) for objective in rung] for rung in ladder.rungs]
    return {"factor": ladder.factor, "unselected": ladder.unselected, "rungs": rungs}


def _objective(objective: Objective) -> dict[str, Any]:
    """All but the function that may tell its value from the recipe."""
    return {name: getattr(objective, name) for name in ("stage", "metric", "label", "maximize", "worst")}


def parameters(trials: Sequence[optuna.trial.FrozenTrial]) -> list[dict[str, Any]]:
    """Every parameter that any trial was asked, in order of first use, with the widest range or all choices seen."""
    found: dict[str, dict[str, Any]] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            row = _parameter(name, distribution)
            found[name] = _joined(found[name], row) if name in found else row
    return list(found.values())


def _parameter(name: str, distribution: optuna.distributions.BaseDistribution) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return {"name": name, "kind": "categorical", "choices": list(distribution.choices)}
    assert isinstance(distribution, FloatDistribution | IntDistribution), type(distribution)
    kind = "int" if isinstance(distribution, IntDistribution) else "float"
    bounds = {"low": distribution.low, "high": distribution.high, "log": distribution.log}
    return {"name": name, "kind": kind, **bounds}


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """A range may move from trial to trial; Optuna itself refuses another kind or other choices."""
    if one["kind"] == "categorical":
        return one
    return one | {"low": min(one["low"], other["low"]), "high": max(one["high"], other["high"])}


def _trial(trial: optuna.trial.FrozenTrial, folder: Path | None) -> dict[str, Any]:
    own = trial.user_attrs
    place = str(own.get(FOLDER, ""))
    run = None if folder is None or not place else Path(folder) / place
    duration, climb = trial.duration, own.get(CLIMB, {"values": [], "wall_s": []})
    wall_s = duration.total_seconds() if duration is not None else None
    if climb["wall_s"]:  # it rested on its rungs in between
        wall_s = sum(climb["wall_s"])
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "params": dict(trial.params),
        "values": list(trial.values) if trial.values is not None else None,
        "constraints": list(trial.constraints.values()),
        "folder": place,
        "worker": str(own.get(WORKER, {}).get("process", "")),
        "reason": str(own.get(REASON, "")),
        "started_utc": _utc(trial.datetime_start),
        "finished_utc": _utc(trial.datetime_complete),
        "wall_s": None if wall_s is None else round(wall_s, 3),
        "rungs": climb["values"],
        "intermediate": [[step, value] for step, value in sorted(trial.intermediate_values.items())],
        "stages": _stages(own.get(STAGES, {}), run),
    }


def _stages(made: Mapping[str, str], run: Path | None) -> list[dict[str, Any]]:
    """The stages noted in a run folder, each as the whole trial made it: a run that was interrupted, or climbed on,
    calls reused what it made before. `made` goes by stage folders. Without the folder it is all there is to tell."""
    noted = [] if run is None else noted_stages(run / "recipe.json")
    if run is None or not noted:
        stages = ((name.partition("-")[2], how) for name, how in made.items())
        return [{"name": name, "key": "", "action": how, "wall_s": 0.0} for name, how in stages]
    found = []
    for entry in noted:
        action, wall_s = made.get(entry["folder"], entry["action"]), entry["wall_s"]
        if action == Action.RUN.value != entry["action"]:
            wall_s = _made_in_s(run / entry["folder"], wall_s)
        found.append({"name": entry["name"], "key": entry["key"], "action": action, "wall_s": wall_s})
    return found


def _made_in_s(stage: Path, noted_s: float) -> float:
    """The seconds that a stage's card tells; what was noted where there is no such card."""
    try:
        return float(json.loads((stage / CARD).read_text())["wall_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return noted_s


def noted_stages(path: Path) -> list[dict[str, Any]]:
    """What a run noted of its finished stages in recipe.json; nothing where it is gone or still being made."""
    try:
        entries = json.loads(path.read_text())["run"]["stages"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [entry | {"wall_s": entry["wall_s"] or 0.0} for entry in entries if entry["finished"]]


def _utc(moment: datetime | None) -> str | None:
    """Optuna's times are local and say so nowhere."""
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="milliseconds")


def importance(study: optuna.Study, objectives: Sequence[Objective]) -> dict[str, dict[str, float]]:
    """Objective's label -> each parameter's share in whether a trial is among the best tenth (PED-ANOVA).

    Empty with fewer than `IMPORTANCE_TRIALS` complete trials; an objective that never varied is left out.
    """
    import optuna

    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < IMPORTANCE_TRIALS:
        return {}
    found = {}
    for index, objective in enumerate(objectives):
        sign = -1.0 if objective.maximize else 1.0
        if len({trial.values[index] for trial in complete}) < 2:
            continue
        with warnings.catch_warnings():  # it warns that low targets count as good, which is why `sign` is there
            warnings.simplefilter("ignore")
            found[objective.label] = optuna.importance.get_param_importances(
                study, target=lambda trial, index=index, sign=sign: sign * trial.values[index]
            )
    return found
