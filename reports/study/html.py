"""Writes a study's page, one file that asks for nothing, and its tables beside it."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from reports.html import environment
from reports.markdown import table
from reports.study import figures, findings, grid, tables
from reports.study.arms import grid_rows
from reports.study.deployed import Index, deployed_markdown, deployed_rows, read_deployed
from reports.study.deployed import summary as deployed_summary
from reports.study.grid import Results
from reports.study.ladder import agreement_rows, caution, ladder_markdown, rung_rows
from reports.study.payload import covered, embedded, payload
from reports.study.pictures import look
from reports.study.read import read_study
from reports.study.record import Study
from reports.study.tables import write_text


def write_study(folder: Path) -> Path:
    """Writes report.html, report.md, trials.csv, and front.tex or a grid's results.tex into a study's folder, and
    deployed.md where trials were deployed; returns the page's path.

    The same study.json and run folders give the same bytes. Raises ReportError where study.json is missing or wrong.
    """
    study = read_study(folder)
    found = grid.results(study) if study.grid is not None else None
    deployed = read_deployed(folder)
    page = Path(folder) / "report.html"
    write_text(page, render_study(study, found, deployed))
    write_text(page.with_suffix(".md"), study_markdown(study, found, deployed))
    if deployed:
        write_text(page.with_name("deployed.md"), f"# {study.name}\n\n{deployed_markdown(deployed)}\n")
    header, *rows = grid_rows(study) if found else tables.front_rows(study)
    write_text(page.with_name("results.tex" if found else "front.tex"), tables.latex(header, rows))
    write_text(page.with_name("trials.csv"), tables.trials_csv(study))
    return page


def render_study(study: Study, found: Results | None = None, deployed: Index | None = None) -> str:
    """The whole page as text; `found` is what a grid came to, `deployed` which trials went on to the phone."""
    shown = look(study)
    header, *rows = tables.front_rows(study)
    told, *lines = grid_rows(study) if found else (header, *rows)
    return (
        environment()
        .get_template("study/study.html.j2")
        .render(
            study=study,
            tiles=findings.tiles(study),
            summary=findings.summary(study),
            header=header,
            rows=rows,
            results=found,
            rungs=rung_rows(study) if study.ladder else [],
            agreements=agreement_rows(study) if study.ladder else [],
            caution=caution(study) if study.ladder else "",
            deployed=deployed_rows(deployed) if deployed else [],
            deployed_summary=deployed_summary(deployed) if deployed else "",
            pages=deployed.pages if deployed else [],
            front_figure=Markup(figures.front_figure(study)),
            latex=tables.latex(told, lines),
            markdown=table(told, lines),
            box=findings.box(study) if covered(study) else "",
            grid=shown.grid,
            notes=[*shown.notes, *(found.notes if found else ())],
            data=embedded(payload(study, shown)),
        )
    )


def study_markdown(study: Study, found: Results | None = None, deployed: Index | None = None) -> str:
    """The study in a terminal or a pull request: its head, then its front and importances, or a grid's results; what
    was deployed comes last."""
    parts = [f"# {study.name}", study.description, findings.summary(study)]
    parts.append(table(["figure", "value", "note"], [[t.name, t.value, t.note] for t in findings.tiles(study)]))
    last = [deployed_markdown(deployed)] if deployed else []
    if found:
        return "\n\n".join(part for part in parts + grid.markdown(study, found) + last if part) + "\n"
    header, *rows = tables.front_rows(study)
    parts += ["## Front", table(header, rows), *ladder_markdown(study)]
    for label, shares in study.importance.items():
        ranked = sorted(shares.items(), key=lambda item: -item[1])
        parts += [f"## What decides {label}", table(["parameter", "importance"], [[n, f"{v:.3f}"] for n, v in ranked])]
    return "\n\n".join(part for part in parts + last if part) + "\n"
