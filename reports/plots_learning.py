"""What longer training buys: scores against all samples trained on so far, along the chain of a run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from reports.plots import HEADLINE_LABELS, interval, spaced_labels
from reports.record import Record
from reports.svg import Panel, Scale, dot, figure, line, polyline

_TASKS = {"t2i": "s1", "edit": "s2"}
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 270, 46, 590, 18, 220


def samples_trained_on(chain: Sequence[Record]) -> list[tuple[float, Record]]:
    """(thousands of samples so far, stage) of the stages that train the many-step student, in order."""
    trained = [record for record in chain if record.stage == "flow" and {"steps", "batch_size"} <= set(record.recipe)]
    seen = accumulate(record.recipe["steps"] * record.recipe["batch_size"] / 1e3 for record in trained)
    return list(zip(seen, trained, strict=True))


def scores_over_samples(chain: Sequence[Record]) -> str:
    """Generation and editing with 95 % intervals, and the teacher's generation; empty for fewer than three stages."""
    rows = [(seen, record) for seen, record in samples_trained_on(chain) if record.scores]
    if len(rows) < 3:
        return ""
    panel = Panel(Scale(0, rows[-1][0], _LEFT, _RIGHT), Scale(0, 1, _BOTTOM, _TOP))
    parts = panel.axes(x_unit="thousand samples trained on", x_ticks=5, y_ticks=5)
    teacher = next((r.scores["t2i"].value for r in chain if not r.number and "t2i" in r.scores), None)
    ends = []
    if teacher is not None:
        parts.append(line(_LEFT, panel.y(teacher), _RIGHT, panel.y(teacher), "reference"))
        ends.append((panel.y(teacher) + 4, f"teacher {teacher:.3f}", "tick"))
    for name, css in _TASKS.items():
        told = [(seen, record) for seen, record in rows if name in record.scores]
        if told:
            parts += _series(panel, told, name, css)
            last = told[-1][1].scores[name].value
            ends.append((panel.y(last) + 4, f"{HEADLINE_LABELS[name]} {last:.3f}", f"series {css}"))
    return figure(_WIDTH, _HEIGHT, "Scores against samples trained on", [*parts, *spaced_labels(ends, _RIGHT + 8)])


def _series(panel: Panel, told: Sequence[tuple[float, Record]], name: str, css: str) -> list[str]:
    parts = [polyline(panel.place([(seen, record.scores[name].value) for seen, record in told]), css)]
    for seen, record in told:
        x, score = panel.x(seen), record.scores[name]
        if score.low is not None and score.high is not None:
            parts.append(line(x, panel.y(score.low), x, panel.y(score.high), f"whisker {css}"))
        parts.append(dot(x, panel.y(score.value), css, f"{record.label}, {HEADLINE_LABELS[name]}: {interval(score)}"))
    return parts
