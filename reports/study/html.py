"""Writes a study's page, one file that asks for nothing, and its tables beside it."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from reports.html import environment
from reports.markdown import table
from reports.study import figures, findings, tables
from reports.study.payload import covered, embedded, payload
from reports.study.pictures import look
from reports.study.read import read_study
from reports.study.record import Study
from reports.study.tables import write_text


def write_study(folder: Path) -> Path:
    """Writes report.html, report.md, front.tex and trials.csv into a study's folder; returns the page's path.

    The same study.json and run folders give the same bytes. Raises ReportError where study.json is missing or wrong.
    """
    study = read_study(folder)
    page = Path(folder) / "report.html"
    rows = [tables.front_row(study, trial) for trial in study.front]
    write_text(page, render_study(study))
    write_text(page.with_suffix(".md"), study_markdown(study))
    write_text(page.with_name("front.tex"), tables.latex(tables.front_header(study), rows))
    write_text(page.with_name("trials.csv"), tables.trials_csv(study))
    return page


def render_study(study: Study) -> str:
    """The whole page as text."""
    shown = look(study)
    header, rows = tables.front_header(study), [tables.front_row(study, trial) for trial in study.front]
    return (
        environment()
        .get_template("study/study.html.j2")
        .render(
            study=study,
            tiles=findings.tiles(study),
            summary=findings.summary(study),
            header=header,
            rows=rows,
            front_figure=Markup(figures.front_figure(study)),
            latex=tables.latex(header, rows),
            markdown=table(header, rows),
            box=findings.box(study) if covered(study) else "",
            grid=shown.grid,
            notes=shown.notes,
            data=embedded(payload(study, shown)),
        )
    )


def study_markdown(study: Study) -> str:
    """The study in a terminal or a pull request: its head, its front, its importances."""
    parts = [f"# {study.name}", study.description, findings.summary(study)]
    parts.append(table(["figure", "value", "note"], [[t.name, t.value, t.note] for t in findings.tiles(study)]))
    parts += ["## Front", table(tables.front_header(study), [tables.front_row(study, t) for t in study.front])]
    for label, shares in study.importance.items():
        rows = sorted(shares.items(), key=lambda item: -item[1])
        parts += [f"## What decides {label}", table(["parameter", "importance"], [[n, f"{v:.3f}"] for n, v in rows])]
    return "\n\n".join(part for part in parts if part) + "\n"
