"""Publishes a run: its cards, its report and one picture under reports/published, and its tables in the README.

What is published is what a reader can check: figures come from the cards alone, and a test holds the README to them.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from reports import grid
from reports.cards import CARD, SAMPLING, read_record
from reports.collect import Run, collect
from reports.markdown import device_table, flow_table, render_markdown
from reports.record import ReportError
from reports.sensitivity import FOLDER as SENSITIVITY
from reports.sheet import draw_sheet

BEGIN, END = "<!-- results:begin, written from the published cards -->", "<!-- results:end -->"
SHEET = "pictures.png"
SHEET_ROWS_PER_TASK = 1


def publish(run_folder: Path, repository: Path) -> Path:
    """Copies what is worth keeping of a run into the repository and rewrites the README's results; returns the folder.

    Raises ReportError where no stage is finished. An earlier publication of the same recipe is replaced, but for the
    cards of stages that this run had no need to make again.
    """
    run = collect(run_folder)
    target = repository / "reports" / "published" / run.name
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    for record in run.stages:
        keep(record.folder, fresh / record.folder.name)
    if (Path(run_folder) / "recipe.json").is_file():
        shutil.copy2(Path(run_folder) / "recipe.json", fresh / "recipe.json")
    if (Path(run_folder) / SENSITIVITY).is_dir():
        shutil.copytree(Path(run_folder) / SENSITIVITY, fresh / SENSITIVITY)
    keep_earlier(run, target, fresh)
    (fresh / "report.md").write_text(render_markdown(replace(collect(fresh), name=run.name)), encoding="utf-8")
    pictures = grid.build(run.chain, rows_per_task=SHEET_ROWS_PER_TASK)
    if pictures.rows:
        draw_sheet(pictures).save(fresh / SHEET, optimize=True)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    update_readme(repository)
    return target


def keep_earlier(run: Run, target: Path, fresh: Path) -> None:
    """Takes over published cards of the run's own stages, by key, that its folder does not hold: a run that went on
    from a shipped artefact never had what came before it."""
    for entry in run.recipe.get("run", {}).get("stages", []):
        earlier, place = target / entry["folder"] / CARD, fresh / entry["folder"]
        if not place.exists() and earlier.is_file() and read_record(earlier.parent).key == entry["key"]:
            keep(earlier.parent, place)


def keep(artefact: Path, place: Path) -> None:
    """Copies what the tables are made from: the card, and how many steps the checkpoint samples in."""
    place.mkdir(parents=True)
    for name in (CARD, SAMPLING):
        if (artefact / name).is_file():
            shutil.copy2(artefact / name, place / name)


def update_readme(repository: Path) -> None:
    """Puts the tables of all published runs between the README's two markers."""
    readme = repository / "README.md"
    before, after = split_readme(readme.read_text(encoding="utf-8"))
    readme.write_text(before + results(repository / "reports" / "published") + after, encoding="utf-8")


def split_readme(text: str) -> tuple[str, str]:
    """What stands before the results and after them, markers included; ReportError where a marker is missing."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ReportError(f"README.md needs one {BEGIN!r} and one {END!r}. Put them where the results shall stand.")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return head + BEGIN + "\n", END + tail


def results(published: Path) -> str:
    """The tables of every published run, in the order of their names, the full ones first."""
    runs = [collect(path.parent) for path in sorted(published.glob("*/recipe.json"))]
    runs.sort(key=lambda run: (not run.name.endswith("_full"), run.name))
    return "\n\n".join(_section(run) for run in runs) + "\n" if runs else "Nothing has been published yet.\n"


def _section(run: Run) -> str:
    run = replace(run, absent=())  # the table shows what there is; the report tells why the rest is missing
    parts = [f"**{run.name}**: {run.description}", flow_table(run), device_table(run)]
    return "\n\n".join(part for part in parts if part)
