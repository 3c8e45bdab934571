"""A sweep's folder as typed rows: its trials, and of a grid what each combination came to over its replicates."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports import words
from reports.cards import read_json
from reports.record import ReportError

RECORD, JOURNAL = "study.json", "journal.log"
_FIELDS = ("name", "description", "objectives", "grid", "replicate", "trials")

Params = dict[str, Any]


@dataclass(frozen=True)
class Objective:
    """What is traded off: a metric on the card of one of a trial's stages."""

    stage: str
    metric: str
    label: str
    maximize: bool


@dataclass(frozen=True)
class Trial:
    """One run of the sweep; `values` are the objectives' if it is finished."""

    number: int
    state: str
    params: Params
    values: tuple[float, ...] | None
    folder: str | None


@dataclass(frozen=True)
class Arm:
    """One combination of a grid: its parameters without the replicate's, and each objective over the replicates."""

    params: Params
    means: tuple[float, ...]
    spreads: tuple[float | None, ...]  # sample standard deviations; None of a single trial
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Study:
    """A sweep as its record tells it."""

    folder: Path
    name: str
    description: str
    objectives: tuple[Objective, ...]
    grid: dict[str, list[Any]] | None
    replicate: str
    trials: tuple[Trial, ...]

    @property
    def finished(self) -> tuple[Trial, ...]:
        """The trials that have values."""
        return tuple(trial for trial in self.trials if trial.values is not None)

    @property
    def names(self) -> list[str]:
        """The parameters that tell one arm from another, or all that any trial has where there is no grid."""
        if self.grid is None:
            return sorted({name for trial in self.trials for name in trial.params})
        return [name for name in self.grid if name != self.replicate]


def is_study(folder: Path) -> bool:
    """Whether a sweep, not a run, works in this folder."""
    return (folder / RECORD).is_file() or (folder / JOURNAL).is_file()


def read_study(folder: Path) -> Study:
    """The sweep in `folder`; ReportError where its record is missing or damaged."""
    path = Path(folder) / RECORD
    if not path.is_file():
        raise ReportError(f"{path} is missing. Run `pocketdiff sweep` again: it repeats no trial and writes it.")
    raw = read_json(path)
    try:
        if missing := [name for name in _FIELDS if name not in raw]:
            raise KeyError(*missing)
        return Study(
            folder=Path(folder),
            name=raw["name"],
            description=raw["description"],
            objectives=tuple(Objective(**objective) for objective in raw["objectives"]),
            grid=raw["grid"],
            replicate=raw["replicate"],
            trials=tuple(_trial(trial) for trial in raw["trials"]),
        )
    except (KeyError, TypeError) as error:
        raise ReportError(f"{path}: not a sweep's record ({error}). Delete it and sweep again.") from None


def _trial(raw: dict[str, Any]) -> Trial:
    values = raw["values"]
    told = values is not None and None not in values  # JSON has no infinity
    return Trial(int(raw["number"]), raw["state"], raw["params"], tuple(values) if told else None, raw["folder"])


def arms(study: Study) -> list[Arm]:
    """The combinations with at least one finished trial, in the grid's order."""
    assert study.grid is not None
    found: dict[tuple[int, ...], dict[str, Trial]] = {}
    for trial in study.finished:
        place = tuple(study.grid[name].index(trial.params[name]) for name in study.names)
        replicate = json.dumps(trial.params.get(study.replicate))
        found.setdefault(place, {})[replicate] = trial  # a killed trial may have run twice
    rows = []
    for place, trials in sorted(found.items()):
        params = {name: study.grid[name][index] for name, index in zip(study.names, place, strict=True)}
        columns = list(zip(*(trial.values or () for trial in trials.values()), strict=True))
        spreads = (statistics.stdev(column) if len(column) > 1 else None for column in columns)
        rows.append(Arm(params, tuple(map(statistics.fmean, columns)), tuple(spreads), tuple(trials.values())))
    return rows


def front(study: Study) -> list[Trial]:
    """The finished trials that no other beats in one objective without being worse in another, by the first one."""
    signs = [-1.0 if objective.maximize else 1.0 for objective in study.objectives]
    costs = {t.number: [s * v for s, v in zip(signs, t.values or (), strict=True)] for t in study.finished}

    def beaten(number: int) -> bool:
        mine = costs[number]
        others = (theirs for theirs in costs.values() if theirs != mine)
        return any(all(a <= b for a, b in zip(theirs, mine, strict=True)) for theirs in others)

    return sorted((t for t in study.finished if not beaten(t.number)), key=lambda t: (t.values or (), t.number))


def grid_rows(study: Study) -> Iterator[list[str]]:
    """A header and one row an arm: parameters, mean and spread of every objective, number of trials."""
    yield [*study.names, *(objective.label for objective in study.objectives), "n"]
    for arm in arms(study):
        cells = [words.plus_minus(*pair) for pair in zip(arm.means, arm.spreads, strict=True)]
        yield [*(str(arm.params[name]) for name in study.names), *cells, str(len(arm.trials))]


def front_rows(study: Study) -> Iterator[list[str]]:
    """A header and one row for each trial that nothing beats: its number, values, parameters and run folder."""
    yield ["trial", *(objective.label for objective in study.objectives), *study.names, "folder"]
    for trial in front(study):
        values = [words.number(value, 4) for value in trial.values or ()]
        params = [str(trial.params.get(name, "")) for name in study.names]
        yield [str(trial.number), *values, *params, trial.folder or ""]
