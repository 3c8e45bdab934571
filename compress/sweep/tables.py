"""A study as a table: what nothing beats, or, for a grid, what every combination came to."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.sweep.definition import Sweep

if TYPE_CHECKING:
    import optuna
    from rich.table import Table


@dataclass(frozen=True)
class Arm:
    """One combination of a grid: its parameters without the replicate's, and each objective over the replicates."""

    params: dict[str, Any]
    means: tuple[float, ...]
    spreads: tuple[float | None, ...]  # sample standard deviations; None of a single trial
    trials: int


def arms(study: optuna.Study, sweep: Sweep) -> list[Arm]:
    """The combinations with at least one finished trial, in the grid's order."""
    assert sweep.grid is not None
    found: dict[tuple[int, ...], dict[Any, list[float]]] = defaultdict(dict)
    names = [name for name in sweep.grid if name != sweep.replicate]
    for trial in study.get_trials(deepcopy=False):
        if trial.values is not None:
            place = tuple(list(sweep.grid[name]).index(trial.params[name]) for name in names)
            found[place][trial.params.get(sweep.replicate)] = trial.values  # a killed trial may have run twice
    rows = []
    for place, values in sorted(found.items()):
        params = {name: sweep.grid[name][index] for name, index in zip(names, place, strict=True)}
        columns = list(zip(*values.values(), strict=True))
        spreads = [statistics.stdev(column) if len(column) > 1 else None for column in columns]
        rows.append(Arm(params, tuple(map(statistics.fmean, columns)), tuple(spreads), len(values)))
    return rows


def grid_rows(study: optuna.Study, sweep: Sweep) -> Iterator[list[str]]:
    """A header and one row an arm: parameters, mean and spread of every objective, number of trials."""
    assert sweep.grid is not None
    names = [name for name in sweep.grid if name != sweep.replicate]
    yield [*names, *(objective.label for objective in sweep.objectives), "n"]
    for arm in arms(study, sweep):
        cells = [
            f"{mean:.4g}" if spread is None else f"{mean:.4g} ± {spread:.2g}"
            for mean, spread in zip(arm.means, arm.spreads, strict=True)
        ]
        yield [*(str(arm.params[name]) for name in names), *cells, str(arm.trials)]


def grid_table(study: optuna.Study, sweep: Sweep) -> Table:
    """`grid_rows` for a terminal."""
    from rich.table import Table

    header, *rows = grid_rows(study, sweep)
    table = Table(*header, box=None)
    for row in rows:
        table.add_row(*row)
    return table


def pareto_table(study: optuna.Study, sweep: Sweep) -> Table:
    """The trials that no other trial beats in every objective, sorted by the first objective."""
    from rich.table import Table

    best = sorted(study.best_trials, key=lambda trial: trial.values[0])
    names = sorted({name for trial in best for name in trial.params})
    table = Table("trial", *(objective.label for objective in sweep.objectives), *names, "folder", box=None)
    for trial in best:
        values = [f"{value:.5g}" for value in trial.values]
        params = [str(trial.params.get(name, "")) for name in names]
        table.add_row(str(trial.number), *values, *params, trial.user_attrs.get("folder", ""))
    return table
