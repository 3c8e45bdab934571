"""The index that `pocketdiff deploy-front` leaves: which trials went on to the phone, and what arrived there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports import words
from reports.cards import read_json, read_verdicts
from reports.markdown import table
from reports.record import ReportError, Verdicts
from reports.study import paired
from reports.study.compare import Z95
from reports.study.tables import shown

INDEX = "deployed.json"
STATES = ("deployed", "failed", "waiting")
_ON_GRIDS = ("quantize", "qat", "deploy")
_REMEDY = "Give the same `pocketdiff deploy-front` again: it makes nothing twice, and writes it anew."


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A trial that went on. `stages` are those after its own, in order: (kind, metrics, verdicts)."""

    number: int
    values: tuple[float, ...]
    folder: str  # of its run, within the sweep's
    state: str
    reason: str = ""
    stages: tuple[tuple[str, Mapping[str, float], tuple[Verdicts, ...]], ...] = ()

    def last(self, metric: str, *kinds: str, other_than: Sequence[str] = ()) -> float | None:
        """The metric on the last card that has it, of stages of these kinds or of all but some."""
        for kind, metrics, _ in reversed(self.stages):
            if (kind in kinds if kinds else kind not in other_than) and metrics.get(metric) is not None:
                return metrics[metric]
        return None

    @property
    def verdicts_in_float(self) -> tuple[Verdicts, ...]:
        """Of the last stage before the grids that has any."""
        return next((found for kind, _, found in reversed(self.stages) if kind not in _ON_GRIDS and found), ())

    @property
    def verdicts_on_phone(self) -> tuple[Verdicts, ...]:
        """Of stage deploy."""
        return next((found for kind, _, found in reversed(self.stages) if kind == "deploy"), ())


@dataclass(frozen=True)
class Index:
    """A deployed.json, read and checked. `top` is how many were asked for; None is the whole front."""

    folder: Path
    top: int | None
    objectives: tuple[str, ...]  # labels
    trials: tuple[Deployed, ...]

    @property
    def pages(self) -> list[str]:
        """Each trial's report, as a link from the sweep's folder; empty where it has none, as one that failed early."""
        pages = [f"{trial.folder}/report.html" for trial in self.trials]
        return [page if (self.folder / page).is_file() else "" for page in pages]


def read_deployed(folder: Path) -> Index | None:
    """The index in a sweep's folder; None where nothing was deployed. ReportError for one that cannot be read."""
    path = Path(folder) / INDEX
    if not path.is_file():
        return None
    raw = read_json(path)
    try:
        labels = tuple(str(entry["label"]) for entry in raw["objectives"])
        trials = tuple(_deployed(row, Path(folder)) for row in raw["rows"])
    except ReportError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise ReportError(f"{path} is no index of deployed trials ({error!r}). {_REMEDY}") from None
    return Index(Path(folder), raw.get("top"), labels, trials)


def _deployed(raw: Mapping[str, Any], root: Path) -> Deployed:
    if raw["state"] not in STATES:
        raise ValueError(f"state is {raw['state']!r}")
    run = root / str(raw["folder"])
    stages = [
        (str(stage["kind"]), dict(stage["metrics"]), read_verdicts(run / str(stage["folder"])))
        for stage in raw["stages"]
    ]
    return Deployed(
        number=int(raw["number"]),
        values=tuple(float(value) for value in raw["values"]),
        folder=str(raw["folder"]),
        state=raw["state"],
        reason=str(raw.get("reason", "")),
        stages=tuple(stages),
    )


Cell = Callable[[Deployed], str]


def _of(metric: str, written: Callable[[float | None], str], *kinds: str) -> Cell:
    return lambda trial: written(trial.last(metric, *kinds))


def _float_score(trial: Deployed) -> float | None:
    return trial.last("overall", other_than=_ON_GRIDS)


def _lost(trial: Deployed) -> str:
    before, after = _float_score(trial), trial.last("overall", "deploy")
    error = paired.error(trial.verdicts_in_float, trial.verdicts_on_phone, "headline", "overall")
    return _difference(before, after, error)


def _lost_on_emulated(trial: Deployed) -> str:
    before, after = (trial.last(f"{form}_overall", "deploy") for form in ("float", "htp"))
    return _difference(before, after, paired.error_of_forms(trial.verdicts_on_phone, "float", "htp"))


def _difference(before: float | None, after: float | None, error: float | None) -> str:
    value = None if before is None or after is None else after - before
    return words.signed_within(value, None if error is None else Z95 * error)


COLUMNS: tuple[tuple[str, Cell], ...] = (
    ("score, float", lambda trial: words.score(_float_score(trial))),
    ("score, W8A16", _of("overall", words.score, "quantize", "qat")),
    ("score, HTP", _of("overall", words.score, "deploy")),
    ("HTP − float", _lost),
    ("pictures emulated", _of("emulated_pictures_count", words.number, "deploy")),
    ("emulator − float on those", _lost_on_emulated),
    ("emulator vs simulation, dB", _of("htp_vs_aimet_sqnr_db", words.number, "deploy")),
    ("nodes on HTP, %", _of("nodes_on_htp_percent", words.number, "deploy")),
    ("binary, MB", _of("binary_mb", words.number, "deploy")),
)


def deployed_rows(index: Index) -> list[list[str]]:
    """A header, then a row a trial: its objectives, what came of it, and figures that any of them has."""
    columns = [column for column in COLUMNS if any(column[1](trial) != words.NO_FIGURE for trial in index.trials)]
    rows = [["trial", *index.objectives, *(name for name, _ in columns), "state", "folder"]]
    for trial in index.trials:
        figures = [cell(trial) for _, cell in columns]
        state = trial.state + (f": {trial.reason}" if trial.reason else "")
        rows.append([str(trial.number), *(shown(value) for value in trial.values), *figures, state, trial.folder])
    return rows


def summary(index: Index) -> str:
    """How many of them are on the phone."""
    done = sum(trial.state == "deployed" for trial in index.trials)
    which = "of the front" if index.top is None else f"of the best {index.top}"
    said = f"{done} of {len(index.trials)} trials {which} went on to their last stage."
    sure = any("±" in cell for row in deployed_rows(index)[1:] for cell in row)
    return f"{said} ± is half the 95 % interval of a difference on the same pictures." if sure else said


def deployed_markdown(index: Index) -> str:
    """The same as text."""
    header, *rows = deployed_rows(index)
    return "\n\n".join(["## Deployed", summary(index), table(header, rows)])
