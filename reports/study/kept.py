"""What every arm of a grid left of each layer group, from the prune cards in its trials' run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from reports.cards import CARD
from reports.collect import collect
from reports.layers import in_order
from reports.plots_pruning import Cell, Column
from reports.record import Kept, ReportError
from reports.study.arms import Setting
from reports.study.record import Study


def kept_columns(study: Study, found: Sequence[Setting]) -> tuple[list[Column], tuple[str, ...]]:
    """A column an arm whose trials' cards tell what was pruned, and notes that name damaged run folders."""
    columns, notes = [], []
    for setting in found:
        for name, arm in setting.arms.items():
            kept = []
            for trial in arm.trials:
                try:
                    kept += _kept(study.folder / trial.folder) if trial.folder else []
                except ReportError as error:
                    notes.append(f"The widths of trial {trial.number} are left out: {error}")
            if kept:
                columns.append(Column(setting.label, name, _cells(kept)))
    return columns, tuple(notes)


def _kept(run: Path) -> list[Mapping[str, Kept]]:
    """What a run's pruning left of each layer group; nothing where it has no such card."""
    record = collect(run).stage("prune") if any(run.glob(f"*/{CARD}")) else None
    return [record.kept] if record and record.kept else []


def _cells(kept: Sequence[Mapping[str, Kept]]) -> dict[str, Cell]:
    cells = {}
    for group in in_order(name for groups in kept for name in groups):
        have = [groups[group] for groups in kept if group in groups]
        share = sum(row.share for row in have) / len(kept)
        told = [row.score_share for row in have if row.score_share is not None]
        importance = sum(told) / len(kept) if told else None
        count = sum(row.kept for row in have) / len(kept)
        note = f"{count:g} of {have[0].units} {have[0].noun} kept ({100 * share:.0f} %)"
        note += f", with {100 * importance:.0f} % of the importance" if importance is not None else ""
        cells[group] = Cell(share, importance, note)
    return cells


def merged(columns: Sequence[Column]) -> list[Column]:
    """Where all arms of a setting kept equally many everywhere, one column for all of them."""
    found: dict[str, list[Column]] = {}
    for column in columns:
        found.setdefault(column.setting, []).append(column)
    out: list[Column] = []
    for label, group in found.items():
        shares = [{name: round(cell.share, 6) for name, cell in column.cells.items()} for column in group]
        if len(group) > 1 and all(share == shares[0] for share in shares):
            cells = {name: Cell(cell.share, None, cell.note.partition(",")[0]) for name, cell in group[0].cells.items()}
            out.append(Column(label, f"all {len(group)}", cells))
        else:
            out += group
    return out
