"""Writes the comparison of runs: one page that asks for nothing, and its tables beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from markupsafe import Markup

from reports import grid, plots, words
from reports.collect import Run, collect
from reports.html import environment
from reports.markdown import table
from reports.record import ReportError
from reports.study import compare, figures, tables
from reports.study.pictures import GRID_BYTES
from reports.study.tables import write_text


def write_comparison(run_folders: Sequence[Path], out: Path | None = None) -> Path:
    """Writes comparison.html, .md and .tex of two or more runs into `out`; returns the page's path.

    Without `out` they go beside the first run, into a folder that names them all. The first run is what the others
    are compared with. Raises ReportError where a run has no scores or the same run is named twice.
    """
    folders = [Path(folder) for folder in run_folders]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ReportError("a run is named twice. Name each run once.")
    runs = [collect(folder) for folder in folders]
    names = run_names(folders, runs)
    out = out or folders[0].parent / ("comparison-" + "-".join(names).replace("/", "_"))
    out.mkdir(parents=True, exist_ok=True)
    page = out / "comparison.html"
    write_text(page, render_comparison(runs, names))
    header, rows = comparison_table(runs, names)
    text = [f"# {' against '.join(names)}", table(header, rows), "## Cost", table(*cost_table(runs, names))]
    write_text(page.with_suffix(".md"), "\n\n".join(text) + "\n")
    write_text(page.with_suffix(".tex"), tables.latex(header, rows))
    return page


def render_comparison(runs: Sequence[Run], names: Sequence[str]) -> str:
    """The whole page as text; ReportError where a run has no scores."""
    finals = [compare.final(run) for run in runs]
    scores = compare.score_rows(finals)
    header, rows = comparison_table(runs, names)
    columns = [replace(record, label=name) for record, name in zip(finals, names, strict=True)]
    return (
        environment()
        .get_template("study/compare.html.j2")
        .render(
            names=names,
            runs=runs,
            finals=finals,
            scores=scores,
            stages=compare.stage_rows(runs),
            costs=cost_table(runs, names)[1],
            recipes=compare.recipe_differences(runs),
            figure=Markup(figures.intervals([(label_of(row), row.scores) for row in scores], names)),
            latex=tables.latex(header, rows),
            markdown=table(header, rows),
            label_of=label_of,
            paired=any(found and found.paired for row in scores for found in row.differences),
            p_text=p_text,
            grid=grid.build(columns, GRID_BYTES),
        )
    )


def run_names(folders: Sequence[Path], runs: Sequence[Run]) -> list[str]:
    """The recipes' names where they differ, else the folders' names, else numbered."""
    for names in ([run.name for run in runs], [folder.resolve().name for folder in folders]):
        if len(set(names)) == len(names):
            return names
    return [f"{run.name} {index}" for index, run in enumerate(runs, start=1)]


def comparison_table(runs: Sequence[Run], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """(header, rows): every score with its interval, then each difference from the first run with interval and p."""
    header = ["score", *names]
    for name in names[1:]:
        header += [f"{name} − {names[0]}", "95 % interval", "p"]
    rows = []
    for row in compare.score_rows([compare.final(run) for run in runs]):
        cells = [label_of(row), *(plots.interval(score) if score else words.NO_FIGURE for score in row.scores)]
        for found in row.differences[1:]:
            bounds = words.NO_FIGURE
            if found and found.low is not None:
                bounds = f"{words.signed(found.low)} to {words.signed(found.high)}"
            cells += [words.signed(found.value if found else None), bounds, p_text(found.p_value if found else None)]
        rows.append(cells)
    return header, rows


def cost_table(runs: Sequence[Run], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """(header, rows): parameters, MACs, bytes, sampling steps and time of each run."""
    rows = []
    for name, values in compare.cost_rows(runs):
        title = "time of live stages" if name == "wall_s" else words.label_of(name)
        rows.append([title, *(words.NO_FIGURE if v is None else words.quantity(name, v) for v in values)])
    return ["", *names], rows


def label_of(row: compare.ScoreRow) -> str:
    """A score's name in words: "generation", "edit: recolour"; a stage keeps its own, for one may be called t2i."""
    if row.kind == "stage":
        return row.name
    if row.kind == "headline":
        return plots.HEADLINE_LABELS.get(row.name, row.name)
    return f"{'generate' if row.kind == 't2i' else row.kind}: {words.label_of(row.name)}"


def p_text(p_value: float | None) -> str:
    """A p-value with three decimals."""
    return words.NO_FIGURE if p_value is None else "<0.001" if p_value < 0.001 else f"{p_value:.3f}"
