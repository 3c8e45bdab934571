"""`pocketdiff report RUN… | STUDY`: the page of a run, of a study, or a comparison of runs, from their files alone."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from compress.errors import Problem, UserError
from compress.study_record import STUDY

JOURNAL = "journal.log"  # of a sweep; without a study.json beside it there is nothing to report yet


def main(options: argparse.Namespace) -> int:
    """Writes the report and says where it is."""
    folders = [Path(name) for name in options.run]
    _check(folders, options)
    if len(folders) > 1:
        compare(folders, Path(options.out) if options.out else None)
    elif (folders[0] / STUDY).is_file():
        write_study(folders[0])
    else:
        write(folders[0])
    if options.publish:
        publish(folders[0])
    return 0


def _check(folders: Sequence[Path], options: argparse.Namespace) -> None:
    """Every mistake in the arguments at once."""
    remedy = "Name a run folder, for example runs/scenes, or a sweep's, for example runs/sweeps/scenes_ratio."
    problems = [Problem("there is no such folder", str(f), remedy) for f in folders if not f.is_dir()]
    studies = [folder for folder in folders if (folder / STUDY).is_file()]
    unwritten = [folder for folder in folders if (folder / JOURNAL).is_file() and folder not in studies]
    remedy = "Run `pocketdiff sweep` with the same sweep once more: it writes study.json from the journal."
    problems += [Problem("the sweep has left no study.json yet", str(folder), remedy) for folder in unwritten]
    if len(folders) > 1 and studies:
        problems.append(Problem("a study cannot be compared", str(studies[0]), "Name run folders, or the study alone."))
    if options.publish and (len(folders) > 1 or studies):
        problems.append(Problem("--publish is for one run", "command line", "Name one run folder, or leave it out."))
    if options.out and len(folders) < 2:
        remedy = "Leave it out: the page of one run or study goes into its own folder."
        problems.append(Problem("--out is for comparisons", "command line", remedy))
    if problems:
        raise UserError(*problems)


def write(folder: Path) -> None:
    """Writes report.html and report.md of a run folder."""
    from reports.html import write_report

    with told("the report cannot be written", folder):
        print(f"Report: {write_report(folder)}")


def write_study(folder: Path) -> None:
    """Writes report.html, its Markdown and its tables into a sweep's folder."""
    from reports.study.html import write_study as write_page

    with told("the report cannot be written", folder):
        print(f"Report: {write_page(folder)}")


def compare(folders: Sequence[Path], out: Path | None) -> None:
    """Writes comparison.html, its Markdown and its LaTeX table."""
    from reports.study.comparison import write_comparison

    with told("the runs cannot be compared", *folders):
        print(f"Comparison: {write_comparison(folders, out)}")


def publish(folder: Path) -> None:
    """Puts the run's cards, report and pictures under reports/published, and its tables into the README."""
    from compress.provenance import REPOSITORY
    from reports.publish import publish as publish_run

    with told("the run cannot be published", folder):
        print(f"Published: {publish_run(folder, REPOSITORY)}")


@contextmanager
def told(what: str, *folders: Path) -> Iterator[None]:
    """What cannot be read or written is the user's to mend, so it is said as such."""
    from reports.record import ReportError

    try:
        yield
    except (ReportError, OSError) as error:
        raise UserError.of(what, ", ".join(map(str, folders)), str(error)) from error
