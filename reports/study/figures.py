"""Figures that are drawn without a script: the front of the first two objectives, and intervals of compared runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports.record import Score
from reports.study.record import Study, Trial
from reports.study.tables import shown
from reports.svg import Panel, Scale, dot, figure, line, polyline, spread, text

WIDTH, HEIGHT = 1112, 460
LEFT, RIGHT, TOP, BOTTOM = 70, 24, 30, 410
COLOURS = ("s1", "s2", "s3", "s4")


def front_figure(study: Study) -> str:
    """The trials over the first two objectives, with the line of those that nothing beats; empty for one objective."""
    if len(study.objectives) < 2 or not study.comparable:
        return ""
    first, second = study.objectives[:2]
    places = {trial.number: _pair(trial) for trial in study.trials if trial.judged}
    x_low, x_high = spread([x for x, _ in places.values()])
    y_low, y_high = spread([y for _, y in places.values()])
    panel = Panel(Scale(x_low, x_high, LEFT, WIDTH - RIGHT), Scale(y_low, y_high, BOTTOM, TOP))
    parts = panel.axes(x_ticks=6, y_ticks=5)
    parts.append(text(LEFT, 14, f"{second.label}, {second.wish}", "bar-name", "start"))
    parts.append(text(WIDTH - RIGHT, HEIGHT - 8, f"{first.label}, {first.wish}", "bar-name", "end"))
    best = {trial.number for trial in study.front}
    rest = [trial for trial in study.comparable if trial.number not in best]
    parts.append(_path(panel, [places[trial.number] for trial in rest], "pale"))
    parts.append(_crosses(panel, [_pair(trial) for trial in study.trials if trial.judged and not trial.feasible]))
    if len(study.objectives) == 2:
        parts.append(polyline(panel.place([_pair(trial) for trial in study.front]), "s1"))
    for trial in study.front:
        x, y = panel.place([places[trial.number]])[0]
        note = f"trial {trial.number}: {first.label} {shown(trial.values[0])}, {second.label} {shown(trial.values[1])}"
        parts.append(dot(x, y, "s1", note, 4.5))
    return figure(WIDTH, HEIGHT, f"Trials by {first.label} and {second.label}, and their Pareto front", parts)


def _pair(trial: Trial) -> tuple[float, float]:
    x, y = trial.values[:2]
    assert x is not None and y is not None, "only judged trials are drawn"
    return x, y


def _path(panel: Panel, points: Sequence[tuple[float, float]], css: str) -> str:
    """Many dots as one element: lines of no length with round ends."""
    steps = " ".join(f"M{x:.1f} {y:.1f}h0" for x, y in panel.place(points))
    return f'<path d="{steps}" class="dots {css}"/>'


def _crosses(panel: Panel, points: Sequence[tuple[float, float]]) -> str:
    steps = " ".join(f"M{x - 3:.1f} {y - 3:.1f}l6 6m-6 0l6-6" for x, y in panel.place(points))
    return f'<path d="{steps}" class="crosses"/>'


def intervals(rows: Sequence[tuple[str, Sequence[Score | None]]], runs: Sequence[str]) -> str:
    """One row a score, one dot a run with its 95 % interval; the axis ends at 1. Empty without scores."""
    if not rows:
        return ""
    left, top, pitch = 190, 30, 13 * len(runs) + 14
    lowest = min(s.value if s.low is None else s.low for _, scores in rows for s in scores if s)
    scale = Scale(max(0.0, math.floor(10 * (lowest - 0.03)) / 10), 1, left, WIDTH - 20)
    bottom = top + pitch * len(rows)
    parts = []
    for value in scale.ticks(5):
        parts += [line(scale(value), top - 6, scale(value), bottom, "grid"), text(scale(value), top - 12, f"{value:g}")]
    for index, (label, scores) in enumerate(rows):
        y = top + pitch * index
        parts.append(text(left - 14, y + pitch / 2 - 2, label, "bar-name", "end"))
        for place, (run, score) in enumerate(zip(runs, scores, strict=True)):
            parts += _interval(scale, y + 9 + 13 * place, run, score, COLOURS[place % len(COLOURS)])
    return figure(WIDTH, round(bottom) + 6, "Scores of the compared runs with 95 % intervals", parts)


def _interval(scale: Scale, y: float, run: str, score: Score | None, css: str) -> list[str]:
    if score is None:
        return []
    parts, note = [], f"{run}: {score.value:.3f}"
    if score.low is not None and score.high is not None:
        parts.append(line(scale(score.low), y, scale(score.high), y, f"whisker {css}"))
        note += f", {score.low:.3f} to {score.high:.3f}"
    return [*parts, dot(scale(score.value), y, css, note, 4)]
