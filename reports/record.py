"""A record: one stage of a run as a typed row of a report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADLINES = ("t2i", "edit", "overall")


class ReportError(ValueError):
    """A card or a run folder that cannot be reported; the message says which file and what to do."""


@dataclass(frozen=True)
class Score:
    """A share in 0..1 of `count` samples, with the bounds of its 95 % interval where they were measured."""

    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None
    rough: bool = False  # from the few pictures of a check during training, not from the benchmark


@dataclass(frozen=True)
class Sample:
    """One picture a stage made for a prompt, and the verifier's verdict on it."""

    kind: str  # "t2i" or "edit"
    task: str
    prompt: str
    file: Path
    source: Path | None
    ok: bool
    reason: str

    @property
    def question(self) -> tuple[str, str, str]:
        """What was asked, apart from who answered: samples of two stages with the same question are comparable."""
        return self.kind, self.task, self.prompt


@dataclass(frozen=True)
class Verdicts:
    """The verifier's verdicts one by one, by one form of a checkpoint's network.

    Two of them are of the same requests and noise where `seed` and `pictures` (asked for of a kind) are equal.
    """

    form: str  # "" for the checkpoint's own; float, aimet and htp beside it
    seed: int
    pictures: int
    tasks: dict[tuple[str, str], str]  # ("t2i", "counting") -> a digit a picture, 1 for accepted


@dataclass(frozen=True)
class Kept:
    """How many of a layer group's units survived pruning, and what share of the group's importance they carried."""

    kind: str
    kept: int
    units: int
    score_share: float | None = None

    @property
    def share(self) -> float:
        """Kept units over units, 0..1."""
        return self.kept / self.units if self.units else 0.0

    @property
    def noun(self) -> str:
        """What is counted, in the plural."""
        return f"{self.kind}s" if self.kind else "units"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One stage. Figures that its card lacks are None or empty; nothing is guessed."""

    folder: Path
    label: str  # "joint"
    number: str  # "40", or "" for an artefact that lies outside the run, such as the teacher
    stage: str
    key: str
    code_version: int
    content_hash: str
    parents: tuple[dict[str, str], ...]
    parameters_m: float | None
    macs_g: float | None
    size_mb: float | None
    scores: dict[str, Score]  # "t2i", "edit", "overall"
    tasks: dict[tuple[str, str], Score]  # ("t2i", "counting") or ("edit", "add") -> score
    steps: int | None  # sampling steps those scores were measured with
    parts: dict[str, float]  # of edits: carried_out, unchanged, untouched_psnr_db
    metrics: dict[str, float]
    curves: dict[str, list[tuple[float, float]]]
    evolution: list[dict[str, Any]]  # one row per pruning step: its name and figures
    kept: dict[str, Kept]  # layer group -> what pruning left of it
    samples: list[Sample]
    verdicts: tuple[Verdicts, ...]  # one by one, of this checkpoint and of other forms of it
    wall_s: float
    peak_rss_gb: float
    created_utc: str
    machine: dict[str, Any]
    git_commit: str | None
    versions: dict[str, str]
    reused_from: str | None
    recipe: dict[str, Any]
    spec: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Whether the stage was computed in this run, rather than taken from a shipped or cached artefact."""
        return self.reused_from is None

    @property
    def anchor(self) -> str:
        """Name of the stage's place on the page."""
        return f"stage-{self.number}-{self.label}" if self.number else f"stage-{self.label}"
