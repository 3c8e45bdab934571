"""What a grid's page has beside any study's: the table of its arms, the best against the control, figures, widths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from reports import plots_pruning, words
from reports.layers import in_order
from reports.markdown import table
from reports.plots_pruning import Cell, Column
from reports.study import error_bars
from reports.study.arms import (
    CONTROL,
    Setting,
    Verdict,
    arm_parameters,
    arms,
    contested,
    grid_rows,
    settings,
    verdicts,
)
from reports.study.kept import kept_columns, merged
from reports.study.record import Study

Cells = list[str | float | None]  # a line of a figure's table


@dataclass(frozen=True)
class Mark:
    """A cell of a results table, and whether it is the best of its column."""

    text: str
    best: bool


@dataclass(frozen=True)
class Line:
    """An arm's row of a results table."""

    name: str
    cells: list[Mark]
    count: int


@dataclass(frozen=True)
class Bars:
    """A figure of error bars: title, drawing, (name, colour class) of each objective in it, and its data as a table."""

    title: str
    drawing: Markup
    legend: list[tuple[str, str]]
    rows: list[Cells]


@dataclass(frozen=True)
class Map:
    """A heat map: title, drawing, and its data as a table."""

    title: str
    drawing: Markup
    rows: list[Cells]


@dataclass(frozen=True)
class Results:
    """A grid's arms by setting, and what stands out among them. `verdicts` is empty where no arm is the control."""

    telling: list[int]  # objectives that tell arms apart
    rows: list[list[str]]  # all arms as one table, its header first
    header: list[str]
    tables: list[tuple[str, list[Line]]]
    verdicts: list[list[str]]
    bars: list[Bars]
    columns: list[Column]
    heat: list[Map]
    notes: tuple[str, ...]
    control: str = CONTROL


def results(study: Study) -> Results:
    """All that a grid's page shows beside any study's."""
    found = settings(study)
    columns, notes = kept_columns(study, found)
    told = verdicts(study, found)
    telling = contested(study, found)
    return Results(
        telling=telling,
        rows=grid_rows(study),
        header=_header(study),
        tables=[(setting.label, _lines(study, found, setting)) for setting in found],
        verdicts=_verdict_rows(told) if any(verdict.control for verdict in told) else [],
        bars=_bars(study, found),
        columns=columns,
        heat=_heat(columns) if columns else [],
        notes=notes,
    )


def summary(study: Study) -> str:
    """How many combinations have values, of how many."""
    assert study.grid is not None
    done, size = sum(len(arm.trials) for arm in arms(study)), math.prod(map(len, study.grid.values()))
    return f"{done} of {size} combinations finished."


def markdown(study: Study, found: Results) -> list[str]:
    """The same as text: the table of all arms, verdicts, and one table of widths a setting."""
    header, *rows = grid_rows(study)
    parts = ["## Results", table(header, rows) if rows else "No trial is finished yet."]
    if found.verdicts:
        columns = ["objective", "setting", "best", "its value", CONTROL, "further apart than both spreads"]
        parts += [f"## The best against {CONTROL}", table(columns, found.verdicts)]
    for setting in dict.fromkeys(column.setting for column in found.columns):
        here = [column for column in merged(found.columns) if column.setting == setting]
        title = "## Share of units kept" + (f", {setting}" if setting else "")
        parts += [title, table(["layer group", *(column.name for column in here)], _kept_rows(here))]
    return parts


def _header(study: Study) -> list[str]:
    names = arm_parameters(study)
    labels = [objective.label for objective in study.objectives]
    return [words.label_of(names[0]) if names else "", *labels, f"{study.replicate}s"]


def _lines(study: Study, found: Sequence[Setting], setting: Setting) -> list[Line]:
    best = {}
    for index in contested(study, found):
        choose = max if study.objectives[index].maximize else min
        best[index] = choose(arm.means[index] for arm in setting.arms.values())
    rows = []
    for name, arm in setting.arms.items():
        pairs = enumerate(zip(arm.means, arm.spreads, strict=True))
        cells = [Mark(words.plus_minus(*pair), best.get(i) == pair[0] and len(setting.arms) > 1) for i, pair in pairs]
        rows.append(Line(name, cells, len(arm.trials)))
    return rows


def _verdict_rows(told: Iterable[Verdict]) -> list[list[str]]:
    signs = {True: "✓", False: "✗", None: words.NO_FIGURE}
    return [[v.objective.label, v.setting, v.best, v.value, v.control or words.NO_FIGURE, signs[v.apart]] for v in told]


def _bars(study: Study, found: Sequence[Setting]) -> list[Bars]:
    """A figure for each metric that tells arms apart; stages that share a metric share its figure."""
    by_metric: dict[str, list[int]] = {}
    for index in contested(study, found):
        objective = study.objectives[index]
        by_metric.setdefault(objective.metric or objective.label, []).append(index)
    figures = []
    for indices in by_metric.values():
        labels = [study.objectives[index].label for index in indices]
        title = words.capital(" and ".join(labels))
        drawing = Markup(error_bars.draw(study, found, indices, title))
        legend = list(zip(labels, error_bars.COLOURS, strict=False))
        figures.append(Bars(title, drawing, legend, _bar_rows(study, found, indices)))
    return figures


def _bar_rows(study: Study, found: Sequence[Setting], indices: Sequence[int]) -> list[Cells]:
    rows: list[Cells] = [["setting", "arm", "objective", "mean", "standard deviation", "n"]]
    for setting in found:
        for name, arm in setting.arms.items():
            for index in indices:
                told = study.objectives[index].label, arm.means[index], arm.spreads[index], len(arm.trials)
                rows.append([setting.label, name, *told])
    return rows


def _heat(columns: Sequence[Column]) -> list[Map]:
    """The heat maps: shares of units, and of importance as each arm itself sees it, where the cards tell that."""
    found = [_map(merged(columns), "Share of units kept", lambda cell: cell.share)]
    if any(cell.importance is not None for column in columns for cell in column.cells.values()):
        title = "Share of the importance kept, as each arm itself measures it"
        found.append(_map(columns, title, lambda cell: cell.importance))
    return found


def _map(columns: Sequence[Column], title: str, value: Callable[[Cell], float | None]) -> Map:
    rows: list[Cells] = [["setting", "arm", "layer group", title]]
    for column in columns:
        rows += [[column.setting, column.name, group, value(cell)] for group, cell in column.cells.items()]
    return Map(title, Markup(plots_pruning.heat_map(columns, title, value)), rows)


def _kept_rows(columns: Sequence[Column]) -> Iterable[list[str]]:
    for group in in_order(name for column in columns for name in column.cells):
        cells = [column.cells.get(group) for column in columns]
        yield [f"`{group}`", *("dropped" if cell is None else f"{cell.share:.2f}" for cell in cells)]
