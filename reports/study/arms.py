"""A grid of trials as a comparison: the arms of its first parameter, side by side in every setting of the others."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports import words
from reports.study.record import Objective, Study, Trial, Value

CONTROL = "random"  # the arm that every other should beat
SAME = 0.01  # means that differ by less within every setting tell no arm from another


@dataclass(frozen=True)
class Arm:
    """One combination of a grid: its parameters without the replicate's, and each objective over the replicates."""

    params: dict[str, Value]
    means: tuple[float, ...]
    spreads: tuple[float | None, ...]  # sample standard deviations; None of a single trial
    trials: tuple[Trial, ...]


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


def arm_parameters(study: Study) -> list[str]:
    """The parameters that tell one arm of a grid from another."""
    assert study.grid is not None
    return [name for name in study.grid if name != study.replicate]


def arms(study: Study) -> list[Arm]:
    """The combinations with at least one trial that has values, in the grid's order."""
    assert study.grid is not None
    names = arm_parameters(study)
    found: dict[tuple[int, ...], dict[Value, Trial]] = {}
    for trial in study.comparable:
        place = tuple(study.grid[name].index(trial.params[name]) for name in names)
        found.setdefault(place, {})[trial.params.get(study.replicate)] = trial  # one that ran twice counts once
    rows = []
    for place, trials in sorted(found.items()):
        params = {name: study.grid[name][index] for name, index in zip(names, place, strict=True)}
        columns = [[trial.figures[index] for trial in trials.values()] for index in range(len(study.objectives))]
        spreads = (statistics.stdev(column) if len(column) > 1 else None for column in columns)
        rows.append(Arm(params, tuple(map(statistics.fmean, columns)), tuple(spreads), tuple(trials.values())))
    return rows


def grid_rows(study: Study) -> list[list[str]]:
    """A header and one row an arm: parameters, mean and spread of every objective, number of trials."""
    names = arm_parameters(study)
    rows = [[*names, *(objective.label for objective in study.objectives), "n"]]
    for arm in arms(study):
        cells = [words.plus_minus(*pair) for pair in zip(arm.means, arm.spreads, strict=True)]
        rows.append([*(str(arm.params[name]) for name in names), *cells, str(len(arm.trials))])
    return rows


def settings(study: Study) -> list[Setting]:
    """The settings in the grid's order; the arms are the values of its first parameter."""
    found: dict[str, dict[str, Arm]] = {}
    for arm in arms(study):
        names = list(arm.params)
        label = ", ".join(_told(name, arm.params) for name in names[1:])
        found.setdefault(label, {})[str(arm.params[names[0]]) if names else study.name] = arm
    return [Setting(label, arms) for label, arms in found.items()]


def _told(name: str, params: Mapping[str, Value]) -> str:
    value = params[name]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{words.label_of(name)} {words.quantity(name, value)}"
    return f"{words.label_of(name)} {value}"


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
