"""`pocketdiff report RUN`: the report of a run folder, or of a sweep's, from its cards alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from compress.errors import UserError


def main(options: argparse.Namespace) -> int:
    """Writes the report and says where it is."""
    folder = Path(options.run)
    if not folder.is_dir():
        raise UserError.of("there is no such folder", str(folder), "Name a run folder, for example runs/scenes.")
    if options.publish:
        refuse_sweep(folder)
    write(folder)
    if options.publish:
        publish(folder)
    return 0


def refuse_sweep(folder: Path) -> None:
    """UserError for a sweep's folder: what is published is a chain of artefacts."""
    from reports.study import is_study

    if is_study(folder):
        remedy = "Publish one of its trials, or leave --publish out."
        raise UserError.of("a sweep cannot be published", str(folder), remedy)


def write(folder: Path) -> None:
    """Writes report.html and report.md of a run folder or a sweep's."""
    from reports.html import write_report
    from reports.record import ReportError

    try:
        page = write_report(folder)
    except ReportError as error:
        raise UserError.of("the report cannot be written", str(folder), str(error)) from error
    print(f"Report: {page}")


def publish(folder: Path) -> None:
    """Puts the run's cards, report and pictures under reports/published, and its tables into the README."""
    from compress.provenance import REPOSITORY
    from reports.publish import publish as publish_run
    from reports.record import ReportError

    try:
        target = publish_run(folder, REPOSITORY)
    except (ReportError, OSError) as error:
        raise UserError.of("the run cannot be published", str(folder), str(error)) from error
    print(f"Published: {target}")
