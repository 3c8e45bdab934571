"""Renders a sweep's report: `report.html`, one self-contained page, and `report.md`, its figures as tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from reports import plots_pruning, plots_study, words
from reports.compare import (
    CONTROL,
    Column,
    Setting,
    Verdict,
    contested,
    kept_columns,
    merged,
    settings,
    verdicts,
)
from reports.layers import in_order
from reports.markdown import table
from reports.study import Study, arms, front_rows, grid_rows, read_study


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


def write_study(folder: Path, env: jinja2.Environment) -> Path:
    """Writes report.html and report.md into a sweep's folder; returns the page's path. ReportError as `read_study`."""
    study = read_study(folder)
    found = settings(study) if study.grid is not None else []
    columns = kept_columns(study, found)
    page = Path(folder) / "report.html"
    page.write_text(render_html(study, found, columns, env), encoding="utf-8")
    page.with_suffix(".md").write_text(render_markdown(study, found, columns), encoding="utf-8")
    return page


def render_html(study: Study, found: Sequence[Setting], columns: Sequence[Column], env: jinja2.Environment) -> str:
    """The whole page as text."""
    searched = study.grid is None and bool(study.finished)
    told = verdicts(study, found)
    return env.get_template("study.html.j2").render(
        study=study,
        summary=summary(study),
        control=CONTROL,
        header=_header(study),
        tables=[(setting.label, _lines(study, found, setting)) for setting in found],
        verdicts=_verdict_rows(told) if any(verdict.control for verdict in told) else [],
        best=list(front_rows(study)) if searched else [],
        bars=_bars(study, found),
        scatter=Markup(plots_study.scatter(study)) if searched else "",
        heat=[(title, Markup(drawing)) for title, drawing in _heat(columns) if drawing],
        trials=list(_trial_rows(study)),
    )


def summary(study: Study) -> str:
    """How many trials are finished, of how many, and what became of the others."""
    if study.grid is None:
        sentence = f"{len(study.finished)} trials finished."
    else:
        done, size = sum(len(arm.trials) for arm in arms(study)), math.prod(map(len, study.grid.values()))
        sentence = f"{done} of {size} combinations finished."
    others = [trial.state for trial in study.trials if trial.values is None]
    states = ", ".join(f"{others.count(state)} {state}" for state in sorted(set(others)))
    return f"{sentence} Beside them: {states}." if states else sentence


def _header(study: Study) -> list[str]:
    return [
        words.label_of(study.names[0]) if study.names else "",
        *(objective.label for objective in study.objectives),
        f"{study.replicate}s",
    ]


def _lines(study: Study, found: Sequence[Setting], setting: Setting) -> list[Line]:
    telling = contested(study, found)
    best = {}
    for index in telling:
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


def _bars(study: Study, found: Sequence[Setting]) -> list[tuple[str, Markup, list[tuple[str, str]]]]:
    """(title, figure, legend) for each metric that tells arms apart; stages that share a metric share its figure."""
    by_metric: dict[str, list[int]] = {}
    for index in contested(study, found):
        by_metric.setdefault(study.objectives[index].metric, []).append(index)
    figures = []
    for indices in by_metric.values():
        labels = [study.objectives[index].label for index in indices]
        title = words.capital(" and ".join(labels))
        drawing = Markup(plots_study.error_bars(study, found, indices, title))
        figures.append((title, drawing, list(zip(labels, plots_study.COLOURS, strict=False))))
    return figures


def _heat(columns: Sequence[Column]) -> list[tuple[str, str]]:
    """The heat maps: shares of units, and of importance as each arm itself sees it, where the cards tell that."""
    units = ("Share of units kept", plots_pruning.heat_map(merged(columns), "Share of units kept"))
    if not any(cell.importance is not None for column in columns for cell in column.cells.values()):
        return [units]
    title = "Share of the importance kept, as each arm itself measures it"
    return [units, (title, plots_pruning.heat_map(columns, title, lambda cell: cell.importance))]


def _trial_rows(study: Study) -> Iterable[list[str]]:
    names = [*study.names, study.replicate] if study.grid and study.replicate in study.grid else study.names
    yield ["trial", "state", *names, *(objective.label for objective in study.objectives), "folder"]
    for trial in study.trials:
        values = trial.values or (None,) * len(study.objectives)
        told = [words.number(value, 4) for value in values]
        yield [
            str(trial.number),
            trial.state,
            *(str(trial.params.get(n, "")) for n in names),
            *told,
            trial.folder or "",
        ]


def render_markdown(study: Study, found: Sequence[Setting], columns: Sequence[Column]) -> str:
    """The same as text: the table of all arms, verdicts, and one table of widths a setting."""
    parts = [f"# {study.name}", study.description, summary(study), "## Results"]
    rows = list(grid_rows(study) if study.grid is not None else front_rows(study))
    parts.append(table(rows[0], rows[1:]) if rows[1:] else "No trial is finished yet.")
    told = verdicts(study, found)
    if any(verdict.control for verdict in told):
        header = ["objective", "setting", "best", "its value", CONTROL, "further apart than both spreads"]
        parts += [f"## The best against {CONTROL}", table(header, _verdict_rows(told))]
    for setting in dict.fromkeys(column.setting for column in columns):
        here = [column for column in merged(columns) if column.setting == setting]
        title = "## Share of units kept" + (f", {setting}" if setting else "")
        parts += [title, table(["layer group", *(column.name for column in here)], _kept_rows(here))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _kept_rows(columns: Sequence[Column]) -> Iterable[list[str]]:
    for group in in_order(name for column in columns for name in column.cells):
        cells = [column.cells.get(group) for column in columns]
        yield [f"`{group}`", *("dropped" if cell is None else f"{cell.share:.2f}" for cell in cells)]
