"""What differs between runs: scores with intervals, the difference's own interval, a test, cost and recipes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reports.collect import Run
from reports.record import HEADLINES, Record, ReportError, Score
from reports.study import paired

Z95 = 1.959964
Scored = tuple[Record | None, Score | None]  # a stage and one of its scores
COSTS = ("parameters_m", "macs_g", "size_mb", "steps", "wall_s")


@dataclass(frozen=True)
class Difference:
    """`new` minus `base`: the 95 % interval of the difference, and how surprising it would be if there were none."""

    value: float
    low: float | None = None
    high: float | None = None
    overlap: bool | None = None  # of the two scores' own intervals
    p_value: float | None = None
    paired: bool = False  # whether both answered the same requests, and their verdicts were compared one by one

    @property
    def certain(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class ScoreRow:
    """One score in every run, and each run's difference from the first."""

    kind: str  # "headline", "t2i", "edit", or "stage": the overall score of a stage, which gives the name
    name: str
    scores: tuple[Score | None, ...]
    differences: tuple[Difference | None, ...]


def difference(base: Score, new: Score, share: bool) -> Difference:
    """The difference of two independent scores.

    Its interval is Newcombe's (1998, method 10), which Zou and Donner (2008) show to hold for any estimates with
    intervals. The test is the pooled two-proportion z-test where both are a `share` of counted samples; for means of
    several shares, whose pooled variance is not known, standard errors come from the intervals.
    """
    value = new.value - base.value
    if base.low is None or base.high is None or new.low is None or new.high is None:
        return Difference(value)
    low = value - math.hypot(new.value - new.low, base.high - base.value)
    high = value + math.hypot(new.high - new.value, base.value - base.low)
    overlap = base.low <= new.high and new.low <= base.high
    if share and base.count and new.count:
        return Difference(value, low, high, overlap, two_proportions(base.value, base.count, new.value, new.count))
    error = math.hypot(base.high - base.low, new.high - new.low) / (2 * Z95)
    return Difference(value, low, high, overlap, two_sided(value / error) if error > 0 else None)


def paired_difference(base: Score, new: Score, error: float) -> Difference:
    """The difference of two scores on the same requests, by its standard error over matched verdicts."""
    value = new.value - base.value
    overlap = None
    if base.low is not None and base.high is not None and new.low is not None and new.high is not None:
        overlap = base.low <= new.high and new.low <= base.high
    return Difference(value, value - Z95 * error, value + Z95 * error, overlap, two_sided(value / error), True)


def two_proportions(share_a: float, n_a: int, share_b: float, n_b: int) -> float:
    """Two-sided p-value of the pooled z-test that two shares of `n_a` and `n_b` samples are equal."""
    pooled = (share_a * n_a + share_b * n_b) / (n_a + n_b)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n_a + 1 / n_b))
    return two_sided((share_b - share_a) / error) if error > 0 else 1.0


def two_sided(z: float) -> float:
    """Probability that a standard normal lies at least |z| from 0."""
    return math.erfc(abs(z) / math.sqrt(2))


def final(run: Run) -> Record:
    """The run's last stage with scores of the benchmark, else with any; ReportError where nothing was scored."""
    scored = [record for record in run.stages if record.scores]
    if not scored:
        raise ReportError(f"run {run.name!r} has no scores to compare. Give its recipe a judge and run it again.")
    return next((r for r in reversed(scored) if not any(s.rough for s in r.scores.values())), scored[-1])


def score_rows(records: Sequence[Record]) -> list[ScoreRow]:
    """Headline scores, then tasks: every score that at least two of the records have."""
    found = [_row("headline", name, name, [(r, r.scores.get(name)) for r in records]) for name in HEADLINES]
    tasks = sorted(
        dict.fromkeys(task for record in records for task in record.tasks), key=lambda task: task[0] != "t2i"
    )
    found += [_row(*task, task[1], [(record, record.tasks.get(task)) for record in records]) for task in tasks]
    return [row for row in found if sum(score is not None for score in row.scores) > 1]


def _row(kind: str, name: str, score: str, scores: Sequence[Scored]) -> ScoreRow:
    """The row called `name`, of the score called `score`."""
    base, *others = scores
    compared = [_compared(base, other, kind, score) for other in others]
    return ScoreRow(kind, name, tuple(found for _, found in scores), (None, *compared))


def _compared(base: Scored, new: Scored, kind: str, name: str) -> Difference | None:
    (base_record, base_score), (new_record, new_score) = base, new
    if base_score is None or new_score is None or base_record is None or new_record is None:
        return None
    measured = "headline" if kind == "stage" else kind
    error = paired.error(base_record.verdicts, new_record.verdicts, measured, name)
    if error is None:
        return difference(base_score, new_score, share=measured != "headline")
    return paired_difference(base_score, new_score, error)


def stage_rows(runs: Sequence[Run]) -> list[ScoreRow]:
    """The overall score of every stage that at least two of the runs have scored, in order."""
    labels = dict.fromkeys(record.label for run in runs for record in run.stages if "overall" in record.scores)
    rows = []
    for label in labels:
        stages = [next((record for record in run.stages if record.label == label), None) for run in runs]
        scores = [(stage, stage.scores.get("overall") if stage else None) for stage in stages]
        if sum(score is not None for _, score in scores) > 1:
            rows.append(_row("stage", label, "overall", scores))
    return rows


def cost_rows(runs: Sequence[Run]) -> list[tuple[str, list[float | None]]]:
    """(name, value of each run): size and compute of the compared checkpoints, time of all live stages."""
    finals = [final(run) for run in runs]
    rows: list[tuple[str, list[float | None]]] = [(name, [getattr(r, name) for r in finals]) for name in COSTS[:-1]]
    rows.append(("wall_s", [sum(record.wall_s for record in run.stages if record.live) for run in runs]))
    return [row for row in rows if any(value is not None for value in row[1])]


def recipe_differences(runs: Sequence[Run]) -> list[tuple[str, list[Any]]]:
    """(stage.field, value in each run) where they are not all equal; None where a run lacks it."""
    flat = [dict(_fields(run)) for run in runs]
    names = dict.fromkeys(name for fields in flat for name in fields)
    rows = [(name, [fields.get(name) for fields in flat]) for name in names]
    return [(name, values) for name, values in rows if any(value != values[0] for value in values[1:])]


def _fields(run: Run) -> Iterator[tuple[str, Any]]:
    for record in run.stages:
        for name, value in record.recipe.items():
            if name not in {"name", "kind", "runner"}:
                yield f"{record.label}.{name}", value
