"""A grid of trials as a comparison: the arms of its first parameter, side by side in every setting of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reports import words
from reports.cards import CARD
from reports.collect import collect
from reports.layers import in_order
from reports.study import Arm, Objective, Params, Study, arms

CONTROL = "random"  # the arm that every other should beat
SAME = 0.01  # means that differ by less within every setting tell no arm from another


@dataclass(frozen=True)
class Setting:
    """What is equal for all arms that are compared, in words, and each arm by its name."""

    label: str
    arms: dict[str, Arm]


@dataclass(frozen=True)
class Verdict:
    """The best arm of a setting by one objective, and whether it is further from the control than both spreads
    together; None where there is no control, or a single trial."""

    objective: Objective
    setting: str
    best: str
    value: str
    control: str | None
    apart: bool | None


@dataclass(frozen=True)
class Cell:
    """What an arm left of a layer group: shares over its replicates, those that dropped the layer counting as 0."""

    share: float
    importance: float | None
    note: str


@dataclass(frozen=True)
class Column:
    """One arm's column of a heat map; a group that it has not is a layer that it dropped."""

    setting: str
    name: str
    cells: dict[str, Cell]


def settings(study: Study) -> list[Setting]:
    """The settings in the grid's order; the arms are the values of its first parameter."""
    found: dict[str, dict[str, Arm]] = {}
    for arm in arms(study):
        names = list(arm.params)
        label = ", ".join(_told(name, arm.params) for name in names[1:])
        found.setdefault(label, {})[str(arm.params[names[0]]) if names else study.name] = arm
    return [Setting(label, arms) for label, arms in found.items()]


def _told(name: str, params: Params) -> str:
    value = params[name]
    plain = isinstance(value, bool) or not isinstance(value, int | float)
    return f"{words.label_of(name)} {value if plain else words.quantity(name, value)}"


def arm_names(found: Sequence[Setting]) -> list[str]:
    """Every arm that any setting has, in the grid's order."""
    return list(dict.fromkeys(name for setting in found for name in setting.arms))


def contested(study: Study, found: Sequence[Setting]) -> list[int]:
    """The objectives that tell arms apart: equal budgets, for one, make parameters and MACs the same for all."""
    telling = []
    for index in range(len(study.objectives)):
        for setting in found:
            means = [arm.means[index] for arm in setting.arms.values()]
            if max(means) - min(means) > SAME * max(map(abs, means)):
                telling.append(index)
                break
    return telling


def verdicts(study: Study, found: Sequence[Setting]) -> list[Verdict]:
    """For every contested objective the best arm of each setting with several arms, against the control."""
    rows = []
    for index in contested(study, found):
        objective = study.objectives[index]
        for setting in found:
            if len(setting.arms) < 2:
                continue
            sign = -1 if objective.maximize else 1
            best = min(setting.arms, key=lambda name: sign * setting.arms[name].means[index])
            control = setting.arms.get(CONTROL)
            told = words.plus_minus(control.means[index], control.spreads[index]) if control else None
            apart = _apart(setting.arms[best], control, index)
            value = words.plus_minus(setting.arms[best].means[index], setting.arms[best].spreads[index])
            rows.append(Verdict(objective, setting.label, best, value, told, apart))
    return rows


def _apart(best: Arm, control: Arm | None, index: int) -> bool | None:
    if control is None or best.spreads[index] is None or control.spreads[index] is None:
        return None
    spreads = (best.spreads[index] or 0.0) + (control.spreads[index] or 0.0)
    return abs(best.means[index] - control.means[index]) > spreads


def kept_columns(study: Study, found: Sequence[Setting]) -> list[Column]:
    """What every arm's pruning left of each layer group, from its trials' cards; arms without any are left out."""
    columns = []
    for setting in found:
        for name, arm in setting.arms.items():
            if cells := _cells([study.folder / trial.folder for trial in arm.trials if trial.folder]):
                columns.append(Column(setting.label, name, cells))
    return columns


def _cells(runs: Sequence[Path]) -> dict[str, Cell]:
    pruned = [collect(run).stage("prune") for run in runs if any(run.glob(f"*/{CARD}"))]
    kept = [record.kept for record in pruned if record and record.kept]
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
