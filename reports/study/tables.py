"""Tables of a study or a comparison as CSV and LaTeX; Markdown is `reports.markdown.table`."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from reports import words
from reports.study.record import Study, Trial, Value

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "–": "--"}
_LATEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"±": r"$\pm$", "×": r"$\times$", "Δ": r"$\Delta$"}
_LATEX |= {"≈": r"$\approx$", "✓": "yes", "✗": "no", "\u202f": r"\,", "\u00a0": "~", "<": "$<$", ">": "$>$"}


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """RFC 4180 with newlines alone at line ends; None is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def latex(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A booktabs tabular; the first column is left-aligned, all others are right-aligned."""
    lines = [" & ".join(map(_escaped, row)) + r" \\" for row in rows]
    head = " & ".join(map(_escaped, header)) + r" \\"
    columns = "l" + "r" * (len(header) - 1)
    parts = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def shown(value: Value) -> str:
    """A parameter's or an objective's value as a table shows it."""
    return words.number(value, 4) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def front_header(study: Study) -> list[str]:
    """Trial, objectives, parameters."""
    labels = [objective.label for objective in study.objectives]
    return ["trial", *labels, *(parameter.name for parameter in study.parameters)]


def front_row(study: Study, trial: Trial) -> list[str]:
    """One trial under `front_header`; what a conditional space did not ask is a dash."""
    params = [shown(trial.params[p.name]) if p.name in trial.params else words.NO_FIGURE for p in study.parameters]
    return [str(trial.number), *(shown(value) for value in trial.values), *params]


def front_rows(study: Study) -> list[list[str]]:
    """`front_header`, and `front_row` of every trial on the front."""
    return [front_header(study), *(front_row(study, trial) for trial in study.front)]


def trials_csv(study: Study) -> str:
    """Every trial with its full-precision values, for any other program."""
    labels = [objective.label for objective in study.objectives]
    names = [parameter.name for parameter in study.parameters]
    times = ["worker", "started_utc", "finished_utc", "wall_s", "folder", "reason"]
    return csv_text(["trial", "state", "feasible", "on_front", *labels, *names, *times], _trial_rows(study))


def _trial_rows(study: Study) -> Iterator[list[object]]:
    best = {trial.number for trial in study.front}
    for trial in study.trials:
        values = trial.values or (None,) * len(study.objectives)
        params = [trial.params.get(parameter.name) for parameter in study.parameters]
        times = [trial.worker, trial.started_utc, trial.finished_utc, trial.wall_s, trial.folder, trial.reason]
        facts = [trial.number, trial.state, int(trial.feasible), int(trial.number in best)]
        yield [*facts, *values, *params, *times]


def write_text(path: Path, text: str) -> None:
    """Whole or not at all: a reader never sees half a page."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
