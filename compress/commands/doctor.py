"""`pocketdiff doctor`: what this machine can do, and what to change where it cannot."""

from __future__ import annotations

import argparse

from rich.table import Table

from compress.doctor import State, examine
from compress.progress import make_console

_STYLE = {State.GOOD: "green", State.NOTE: "yellow", State.BAD: "bold red"}


def main(options: argparse.Namespace) -> int:
    """Prints the findings; exit code 2 if one of them would stop `make run`."""
    table = Table("", "check", "finding", "remedy", box=None, padding=(0, 2, 0, 0))
    findings = list(examine())
    for finding in findings:
        mark = f"[{_STYLE[finding.state]}]{finding.state.value}[/]"
        table.add_row(mark, finding.check, finding.value, finding.remedy)
    make_console().print(table)
    return 2 if any(finding.state is State.BAD for finding in findings) else 0
