"""What the pipeline hands to a stage, and what the stage hands back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class Progress(Protocol):
    """How a stage tells the user where it is; `compress.progress` implements it for terminals and for log files."""

    def start(self, total: int, unit: str, label: str, done: int = 0) -> None:
        """Open a bar of `total` `unit`s; `done` of them were finished by an earlier, interrupted attempt."""

    def advance(self, n: int = 1, **values: float) -> None:
        """`n` more units are finished; `values` (for example loss=0.12) are shown beside the bar."""

    def message(self, text: str) -> None:
        """Print one line above the bar."""


@dataclass(frozen=True)
class StageContext:
    """Where a stage reads, writes and reports. A stage touches no other folder.

    out     empty folder to fill with the artefact; the pipeline moves it into place once the stage has returned
    work    scratch that survives a kill: checkpoints, logs; the same folder is handed to the resumed attempt
    parent  the artefact this stage starts from; for the first stage of a student's recipe that is the teacher
    teacher the frozen teacher's artefact; None in a recipe that trains the teacher itself
    device  where to compute; None for a stage whose configuration says that it uses no torch
    cache   folder shared by runs, for derived data in keyed files (rendered latents); may be deleted at any time
    watch   told every point of a training stage's learning curves, as (steps, figures); what it raises ends the stage
    held    what stages of this process's earlier runs left in memory for those of later ones, by the stage's kind; None
            where no run follows
    """

    out: Path
    work: Path
    parent: Path | None
    teacher: Path | None
    device: torch.device
    progress: Progress
    cache: Path
    watch: Callable[[int, Mapping[str, float]], None] | None = None
    held: dict[str, Any] | None = None

    @property
    def logs(self) -> Path:
        """Folder for CSV and TensorBoard logs; kept as runs/<recipe>/logs/<stage> when `work` is cleared."""
        folder = self.work / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@dataclass
class StageResult:
    """What the card says about the artefact beyond its provenance.

    metrics  name -> number; names end in a unit or the number is a score in 0..1
    curves   name -> [(step, value), ...]
    extra    anything else worth keeping, as plain JSON
    spec     the configuration of the network that was made (the U-Net's `config.json`)
    """

    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
