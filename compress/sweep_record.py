"""What a study leaves for its report: the objectives and every trial, as plain JSON beside the journal."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.artifact import write_json

if TYPE_CHECKING:
    import optuna

    from compress.sweep import Sweep

RECORD = "study.json"
LOCK = ".study.lock"


def write_record(study: optuna.Study, sweep: Sweep, folder: Path) -> None:
    """Replaces the record in `folder`. Processes that work on one study take turns from reading it to writing, so that
    none puts an older state over a newer one."""
    with open(folder / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_json(folder / RECORD, as_json(study, sweep))


def as_json(study: optuna.Study, sweep: Sweep) -> dict[str, Any]:
    """Name, objectives, the grid if there is one, and of each trial number, state, parameters, values and folder."""
    objectives = [
        {"stage": o.stage, "metric": o.metric, "label": o.label, "maximize": o.maximize} for o in sweep.objectives
    ]
    trials = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "params": trial.params,
            "values": trial.values,
            "folder": trial.user_attrs.get("folder"),
        }
        for trial in study.get_trials(deepcopy=False)
    ]
    grid = None if sweep.grid is None else {name: list(values) for name, values in sweep.grid.items()}
    head = {"name": sweep.name, "description": sweep.description, "objectives": objectives}
    return {**head, "grid": grid, "replicate": sweep.replicate, "trials": trials}
