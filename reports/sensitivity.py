"""What `pocketdiff sensitivity` left in a run folder: how far the velocity moves without part of one layer group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports.cards import read_json
from reports.layers import in_order
from reports.record import Record, ReportError

FOLDER = "sensitivity"
_HEAD = ("key", "criterion", "samples", "velocity_mean_square")
_ROW = ("group", "kind", "units", "ratio_units", "dropped", "velocity_mse")


@dataclass(frozen=True)
class Measured:
    """The velocity error without `dropped` of a group's units."""

    dropped: int
    velocity_mse: float


@dataclass(frozen=True)
class Groupwise:
    """One layer group; `errors` has an entry for each ratio asked for that drops any of its units."""

    name: str
    kind: str
    units: int
    errors: dict[float, Measured]


@dataclass(frozen=True)
class Sensitivity:
    """One network of the run, every group by itself, in the network's order. `power` is the mean square of its
    velocity: an error as large as that is a network that says nothing."""

    label: str
    criterion: str
    samples: int
    power: float
    ratios_units: tuple[float, ...]
    groups: tuple[Groupwise, ...]


def read_sensitivities(run: Path, chain: Iterable[Record]) -> tuple[Sensitivity, ...]:
    """Those of the networks in `chain`, in its order; what was measured on another version of a stage is left out.

    Raises ReportError if a file there is damaged.
    """
    by_key = {raw["key"]: raw for raw in map(_read, sorted((run / FOLDER).glob("*.json")))}
    return tuple(_sensitivity(record.label, by_key[record.key]) for record in chain if record.key in by_key)


def _read(path: Path) -> dict[str, Any]:
    raw = read_json(path)
    rows = raw.get("rows") if isinstance(raw, dict) else None
    if not rows or any(name not in raw for name in _HEAD) or any(name not in row for row in rows for name in _ROW):
        raise ReportError(f"{path}: not what `pocketdiff sensitivity` writes. Delete it, or measure again.")
    return dict(raw)


def _sensitivity(label: str, raw: dict[str, Any]) -> Sensitivity:
    groups: dict[str, Groupwise] = {}
    for row in raw["rows"]:
        group = groups.setdefault(row["group"], Groupwise(row["group"], row["kind"], int(row["units"]), {}))
        if row["dropped"]:
            group.errors[float(row["ratio_units"])] = Measured(int(row["dropped"]), float(row["velocity_mse"]))
    ratios = sorted({float(row["ratio_units"]) for row in raw["rows"]})
    ordered = tuple(groups[name] for name in in_order(groups))
    return Sensitivity(
        label, raw["criterion"], int(raw["samples"]), float(raw["velocity_mean_square"]), tuple(ratios), ordered
    )
