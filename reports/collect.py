"""From a run folder to records: which stages it holds, in order, the teacher they came from, and the recipe."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from reports.cards import CARD, read_json, read_record
from reports.record import Record, ReportError
from reports.sensitivity import Sensitivity, read_sensitivities

_REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Absent:
    """A stage of the recipe without an artefact in the run folder, and why, as far as the run's journal tells."""

    number: str
    label: str
    reason: str


@dataclass(frozen=True)
class Run:
    """A run folder: the recipe as it was resolved, the teacher if it can be found, and the stages in order."""

    name: str
    description: str
    recipe: dict[str, Any]
    teacher: Record | None
    stages: tuple[Record, ...]
    absent: tuple[Absent, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()

    @property
    def chain(self) -> tuple[Record, ...]:
        """Teacher (if known) and stages: everything that has figures to compare."""
        return (self.teacher, *self.stages) if self.teacher else self.stages

    @property
    def slots(self) -> tuple[Record | Absent, ...]:
        """The chain with the absent stages in their places, neighbours that are absent for one reason as one."""
        slots: list[Record | Absent] = [*self.chain, *self.absent]
        slots.sort(key=lambda slot: int(slot.number or -1))
        groups = groupby(slots, key=lambda slot: slot.reason if isinstance(slot, Absent) else slot.anchor)
        return tuple(_as_one(list(group)) for _, group in groups)

    def stage(self, kind: str) -> Record | None:
        """The last stage of this kind, or None."""
        found = [record for record in self.stages if record.stage == kind]
        return found[-1] if found else None


def collect(folder: Path) -> Run:
    """Reads every finished stage under `folder` (`<number>-<name>/card.json`); ReportError if there is none."""
    folder = Path(folder)
    paths = [path.parent for path in folder.glob(f"*/{CARD}") if path.parent.name.partition("-")[0].isdigit()]
    stages = [read_record(path) for path in paths]
    if not stages:
        raise ReportError(f"{folder}: no stage is finished there yet. Run `pocketdiff run <recipe>` first.")
    stages.sort(key=lambda record: (int(record.number or 0), record.label))
    recipe = read_json(folder / "recipe.json") if (folder / "recipe.json").is_file() else {}
    teacher = _teacher(recipe, stages)
    return Run(
        name=recipe.get("name", folder.resolve().name),
        description=recipe.get("description", ""),
        recipe=recipe,
        teacher=teacher,
        stages=tuple(stages),
        absent=_absent(recipe, {record.folder.name for record in stages}),
        sensitivities=read_sensitivities(folder, [teacher, *stages] if teacher else stages),
    )


def _as_one(slots: list[Record | Absent]) -> Record | Absent:
    first, last = slots[0], slots[-1]
    if len(slots) == 1 or not isinstance(first, Absent):
        return first
    return Absent(f"{first.number}–{last.number}", f"{first.label} to {last.label}, {len(slots)} stages", first.reason)


def _teacher(recipe: dict[str, Any], stages: list[Record]) -> Record | None:
    """The teacher's record, if the recipe's folder holds the very artefact that a stage names as its parent."""
    where = (recipe.get("teacher") or {}).get("folder")
    if not where:
        return None
    parents = {parent.get("key") for record in stages for parent in record.parents}
    for base in (Path(), _REPOSITORY):
        if (base / where / CARD).is_file():
            teacher = read_record(base / where, outside=True)
            if teacher.key in parents:
                return teacher
    return None


def _absent(recipe: dict[str, Any], present: set[str]) -> tuple[Absent, ...]:
    found = []
    for entry in recipe.get("run", {}).get("stages", []):
        number, _, label = entry["folder"].partition("-")
        if entry["folder"] not in present and number.isdigit():
            reason = (
                "not needed: a later stage was there already" if entry["action"] == "not needed" else "not made yet"
            )
            found.append(Absent(number, label, reason))
    return tuple(found)
