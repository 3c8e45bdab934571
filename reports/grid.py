"""The picture grid: the same prompts and edits through all stages, one row a prompt, one column a stage."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from reports.record import Record, Sample

ROWS_PER_TASK = 3
BUDGET_BYTES = 2_800_000  # of PNG; base64 makes 3.7 MB of it, and the page has to stay below 5 MB

Question = tuple[str, str, str]


@dataclass(frozen=True)
class Row:
    """One prompt: its source picture for an edit, and one sample or None for each column."""

    kind: str
    task: str
    prompt: str
    source: Path | None
    cells: tuple[Sample | None, ...]

    @property
    def contested(self) -> bool:
        """Whether the verifier accepts some stages' pictures and refuses others'."""
        return len({cell.ok for cell in self.cells if cell}) > 1


@dataclass(frozen=True)
class Grid:
    """Rows to show, the records of its columns, and how many further rows were left out for size."""

    columns: tuple[Record, ...]
    rows: tuple[Row, ...]
    left_out: int


def build(chain: Sequence[Record], budget_bytes: int = BUDGET_BYTES, rows_per_task: int = ROWS_PER_TASK) -> Grid:
    """Lines the samples of all stages up by prompt; takes tasks in turn until the budget is spent."""
    columns = tuple(record for record in chain if record.samples)
    answers = [{sample.question: sample for sample in record.samples} for record in columns]
    questions = list(dict.fromkeys(question for column in answers for question in column))
    rows, spent = [], 0
    for question in _in_turn(questions, rows_per_task):
        row = _row(question, [column.get(question) for column in answers])
        size = sum(path.stat().st_size for path in _pictures(row))
        if spent + size <= budget_bytes:
            rows.append(row)
            spent += size
    order = {question: place for place, question in enumerate(_by_task(questions))}
    rows.sort(key=lambda row: order[row.kind, row.task, row.prompt])
    return Grid(columns, tuple(rows), len(questions) - len(rows))


def data_uri(path: Path) -> str:
    """The PNG as text that an `img` can show without a further file."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _row(question: Question, cells: Sequence[Sample | None]) -> Row:
    source = next((cell.source for cell in cells if cell and cell.source and cell.source.is_file()), None)
    return Row(*question, source, tuple(cells))


def _pictures(row: Row) -> list[Path]:
    return [cell.file for cell in row.cells if cell] + ([row.source] if row.source else [])


def _grouped(questions: Sequence[Question]) -> list[list[Question]]:
    groups: dict[tuple[str, str], list[Question]] = {}
    for question in questions:
        groups.setdefault(question[:2], []).append(question)
    return sorted(groups.values(), key=lambda group: group[0][0] != "t2i")  # generation first, else as they came


def _by_task(questions: Sequence[Question]) -> list[Question]:
    return [question for group in _grouped(questions) for question in group]


def _in_turn(questions: Sequence[Question], rows_per_task: int) -> list[Question]:
    """The first prompt of each task, then the second of each, and so on; generation and editing alternate."""
    groups = [group[:rows_per_task] for group in _grouped(questions)]
    kinds = [[group for group in groups if (group[0][0] == "t2i") == generated] for generated in (True, False)]
    alternating = [group for pair in zip_longest(*kinds, fillvalue=()) for group in pair]
    return [question for turn in zip_longest(*alternating) for question in turn if question is not None]
