"""The index that `pocketdiff deploy-front` leaves: which trials went on to the phone, and what arrived there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports import words
from reports.cards import read_json
from reports.markdown import table
from reports.record import ReportError
from reports.study.tables import shown

INDEX = "deployed.json"
STATES = ("deployed", "failed", "waiting")
_REMEDY = "Give the same `pocketdiff deploy-front` again: it makes nothing twice, and writes it anew."


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A trial that went on. `stages` are those after its own, in order: (kind, metrics)."""

    number: int
    values: tuple[float, ...]
    folder: str  # of its run, within the sweep's
    state: str
    reason: str = ""
    stages: tuple[tuple[str, Mapping[str, float]], ...] = ()

    def last(self, metric: str, *kinds: str, other_than: Sequence[str] = ()) -> float | None:
        """The metric on the last card that has it, of stages of these kinds or of all but some."""
        for kind, metrics in reversed(self.stages):
            if (kind in kinds if kinds else kind not in other_than) and metrics.get(metric) is not None:
                return metrics[metric]
        return None


@dataclass(frozen=True)
class Index:
    """A deployed.json, read and checked. `top` is how many were asked for; None is the whole front."""

    folder: Path
    top: int | None
    objectives: tuple[str, ...]  # labels
    trials: tuple[Deployed, ...]


def read_deployed(folder: Path) -> Index | None:
    """The index in a sweep's folder; None where nothing was deployed. ReportError for one that cannot be read."""
    path = Path(folder) / INDEX
    if not path.is_file():
        return None
    raw = read_json(path)
    try:
        labels = tuple(str(entry["label"]) for entry in raw["objectives"])
        trials = tuple(_deployed(row) for row in raw["rows"])
    except (KeyError, TypeError, ValueError) as error:
        raise ReportError(f"{path} is no index of deployed trials ({error!r}). {_REMEDY}") from None
    return Index(Path(folder), raw.get("top"), labels, trials)


def _deployed(raw: Mapping[str, Any]) -> Deployed:
    if raw["state"] not in STATES:
        raise ValueError(f"state is {raw['state']!r}")
    stages = [(str(stage["kind"]), dict(stage["metrics"])) for stage in raw["stages"]]
    return Deployed(
        number=int(raw["number"]),
        values=tuple(float(value) for value in raw["values"]),
        folder=str(raw["folder"]),
        state=raw["state"],
        reason=str(raw.get("reason", "")),
        stages=tuple(stages),
    )


_ON_GRIDS = ("quantize", "deploy")
Figure = Callable[[Deployed], float | None]


def _float_score(trial: Deployed) -> float | None:
    return trial.last("overall", other_than=_ON_GRIDS)


def _lost(trial: Deployed) -> float | None:
    before, after = _float_score(trial), trial.last("overall", "deploy")
    return None if before is None or after is None else after - before


def _on(form: str, trial: Deployed) -> float | None:
    return trial.last(f"{form}_overall", "deploy")


def _paired(trial: Deployed) -> float | None:
    before, after = _on("float", trial), _on("htp", trial)
    return None if before is None or after is None else after - before


COLUMNS: tuple[tuple[str, Figure, Callable[[float | None], str]], ...] = (
    ("score, float", _float_score, words.score),
    ("score, W8A16", lambda trial: trial.last("overall", "quantize"), words.score),
    ("score, HTP", lambda trial: trial.last("overall", "deploy"), words.score),
    ("HTP − float", _lost, words.signed),
    ("pictures emulated", lambda trial: trial.last("emulated_pictures_count", "deploy"), words.number),
    ("emulator − float on those", _paired, words.signed),
    ("emulator vs simulation, dB", lambda trial: trial.last("htp_vs_aimet_sqnr_db", "deploy"), words.number),
    ("binary, MB", lambda trial: trial.last("binary_mb", "deploy"), words.number),
)


def deployed_rows(index: Index) -> list[list[str]]:
    """A header, then a row a trial: its objectives, what came of it, and figures that any of them has."""
    columns = [column for column in COLUMNS if any(column[1](trial) is not None for trial in index.trials)]
    rows = [["trial", *index.objectives, *(name for name, _, _ in columns), "state", "folder"]]
    for trial in index.trials:
        figures = [written(figure(trial)) for _, figure, written in columns]
        state = trial.state + (f": {trial.reason}" if trial.reason else "")
        rows.append([str(trial.number), *(shown(value) for value in trial.values), *figures, state, trial.folder])
    return rows


def summary(index: Index) -> str:
    """How many of them are on the phone."""
    done = sum(trial.state == "deployed" for trial in index.trials)
    which = "of the front" if index.top is None else f"of the best {index.top}"
    return f"{done} of {len(index.trials)} trials {which} went on to their last stage."


def deployed_markdown(index: Index) -> str:
    """The same as text."""
    header, *rows = deployed_rows(index)
    return "\n\n".join(["## Deployed", summary(index), table(header, rows)])
