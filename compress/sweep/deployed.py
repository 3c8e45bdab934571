"""The index of what `pocketdiff deploy-front` made, a row a trial; every process that is at it writes the same file."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compress.artifact import write_json
from compress.locks import locked
from compress.sweep.definition import Sweep

INDEX, LOCK = "deployed.json", ".deployed.lock"
WAITING, DONE, FAILED = "waiting", "deployed", "failed"


@dataclass(kw_only=True)
class Row:
    """A trial on its way to the phone. `stages` are those after its own, as far as they are made: folder, kind, action
    ("run" or "reused") and metrics of each. `ended_s`, in seconds since 1970, is when it came to its state."""

    number: int
    params: dict[str, Any]
    values: list[float]
    folder: str  # within the sweep's
    state: str = WAITING
    reason: str = ""
    wall_s: float | None = None
    ended_s: float | None = None
    stages: list[dict[str, Any]] = field(default_factory=list)


class DeployedIndex:
    """deployed.json in a sweep's folder. `top` is how many trials were asked for; None is the whole front."""

    def __init__(self, folder: Path, sweep: Sweep, top: int | None) -> None:
        self.path, self.sweep, self.top = folder / INDEX, sweep, top
        self.began_s = time.time()

    def write(self, rows: Sequence[Row]) -> None:
        """Replaces the file, whole or not at all. Of rows that still wait here, those that another process has brought
        to an end since this one began are first filled in with what it wrote of them."""
        objectives = [{"label": entry.label, "maximize": entry.maximize} for entry in self.sweep.objectives]
        with locked(self.path.with_name(LOCK)):
            others = {row.folder: row for row in read_rows(self.path)}
            for row in rows:
                other = others.get(row.folder)
                if row.state == WAITING and other is not None and (other.ended_s or 0) >= self.began_s:
                    vars(row).update(vars(other))
            found = {"study": self.sweep.name, "top": self.top, "objectives": objectives}
            write_json(self.path, found | {"rows": [asdict(row) for row in rows]})


def read_rows(path: Path) -> list[Row]:
    """The rows of an index; none where there is no index, or none that can be read."""
    try:
        return [Row(**row) for row in json.loads(path.read_text())["rows"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
