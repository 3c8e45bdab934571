"""The figures of a report, each a function from records to one inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reports import words
from reports.record import HEADLINES, Record, Score
from reports.svg import Panel, Points, Scale, dot, figure, line, polyline, smooth, spread, text, thin, tip

COLOURS = ("s1", "s2", "s3", "s4")
_SERIES = {"t2i": "s1", "edit": "s2", "overall": "s3"}
_EVOLUTION = (
    ("parameters_m", "Parameters, M", "s1"),
    ("macs_g", "MACs of one forward, G", "s3"),
    ("velocity_mse", "Velocity error against the teacher, MSE", "s2"),
)
HEADLINE_LABELS = {"t2i": "generation", "edit": "editing", "overall": "overall"}
_SQNR_AT_LEAST_DB = {"htp_vs_aimet": 55.0, "htp_vs_float": 35.0}


def scores_over_stages(chain: Sequence[Record]) -> str:
    """Generation, editing and overall score of each stage with 95 % intervals, joined along the flow.

    An untrained network scores near nothing and would squeeze all others into a corner, so the axis begins just below
    the trained stages; what lies below it stands at the foot with its value.
    """
    records = [record for record in chain if record.scores]
    if not records:
        return ""
    left, right, top, bottom = 44, 120, 18, 250
    step = min(140.0, 890 / max(len(records) - 1, 1))
    width = round(left + right + step * max(len(records) - 1, 1) + 40)
    span = width - right - 20
    floor = _floor([record for record in records if record.stage != "prune"] or records)
    panel = Panel(Scale(0, len(records) - 1, left + 20, span), Scale(floor, 1, bottom, top))
    frame = Panel(Scale(0, 1, left, span + 20), panel.y)
    parts = [part for value in panel.y.ticks() for part in _rung(frame, value)]
    for index, record in enumerate(records):
        parts.append(text(panel.x(index), bottom + 20, record.label, "stage-name"))
    for place, name in enumerate(HEADLINES):
        parts += _score_series(panel, records, name, place)
    parts += _end_labels(panel, records, span + 28)
    return figure(width, bottom + 34, "Scores of each stage with 95 % intervals", parts)


def _floor(records: Sequence[Record]) -> float:
    """A multiple of 0.1 at least 0.03 below every score and bound."""
    lowest = min(
        score.value if score.low is None else score.low for record in records for score in record.scores.values()
    )
    return max(0.0, math.floor(10 * (lowest - 0.03)) / 10)


def _rung(frame: Panel, value: float) -> list[str]:
    y = frame.y(value)
    return [
        line(frame.x.start, y, frame.x.end, y, "axis" if value == frame.y.low else "grid"),
        text(frame.x.start - 7, y + 3.5, f"{value:g}", anchor="end"),
    ]


def _told(record: Record, name: str) -> Score | None:
    """The score to draw: the overall score of a stage that only generates says nothing new."""
    return None if name == "overall" and "edit" not in record.scores else record.scores.get(name)


def _score_series(panel: Panel, records: Sequence[Record], name: str, place: int) -> list[str]:
    css = _SERIES[name]
    shift = (place - 1) * 7  # side by side, so that intervals do not hide each other
    places = [(panel.x(i) + shift, record.label, _told(record, name)) for i, record in enumerate(records)]
    inside = [(x, panel.y(score.value)) for x, _, score in places if score and score.value >= panel.y.low]
    parts = [polyline(inside, css)]
    for x, label, score in places:
        if score is None:
            continue
        y, note = panel.y(max(score.value, panel.y.low)), f"{label}, {HEADLINE_LABELS[name]}: {interval(score)}"
        if score.value < panel.y.low:
            parts.append(text(x, y - 9 - 13 * place, f"{score.value:.2f} ↓", f"series {css}"))  # one above the other
        elif score.low is not None and score.high is not None:
            parts.append(line(x, panel.y(max(score.low, panel.y.low)), x, panel.y(score.high), f"whisker {css}"))
        parts.append(dot(x, y, css, note))
    return parts


def _end_labels(panel: Panel, records: Sequence[Record], x: float) -> list[str]:
    ends = []
    for name in HEADLINES:
        scores = [score for record in records if (score := _told(record, name)) is not None]
        if scores:
            label = f"{HEADLINE_LABELS[name]} {scores[-1].value:.3f}"
            ends.append((panel.y(max(scores[-1].value, panel.y.low)) + 4, label, f"series {_SERIES[name]}"))
    return spaced_labels(ends, x)


def spaced_labels(ends: Sequence[tuple[float, str, str]], x: float) -> list[str]:
    """Labels at the ends of lines, (y in pixels, text, class), a line's distance apart where values nearly agree."""
    placed, below = [], float("-inf")
    for y, label, css in sorted(ends):
        below = max(y, below + 15)
        placed.append(text(x, below, label, css, "start"))
    return placed


def interval(score: Score) -> str:
    """A score with its interval and sample count in words: "0.871 (0.850 to 0.890, n = 1000)"."""
    notes = []
    if score.low is not None and score.high is not None:
        notes.append(f"{score.low:.3f} to {score.high:.3f}")
    if score.count:
        notes.append(f"n = {score.count}")
    if score.rough:
        notes.append("a quick check during training")
    return words.score(score.value) + (f" ({', '.join(notes)})" if notes else "")


def colours(names: Sequence[str]) -> list[str]:
    """A colour class for each curve: generation and editing keep theirs on the whole page, others take what is left."""
    wanted = ["s1" if "t2i" in name else "s2" if "edit" in name else "s3" for name in names]
    given: list[str] = []
    for colour in wanted:
        free = [other for other in ("s4", *COLOURS) if other not in given and other not in wanted]
        given.append(free[0] if colour in given and free else colour)
    return given


def chart(series: Mapping[str, Points], label: str, css: Sequence[str] = COLOURS, x_unit: str = "step") -> str:
    """Curves over a common step axis in one small panel; an empty string if there are no points.

    Noisy ones are a faint line under their moving average; a range of 1.5 decades or more makes a log scale.
    """
    series = {name: thin(points) for name, points in series.items() if points}
    if not series:
        return ""
    width, height, left, right, top, bottom = 340, 190, 46, 14, 16, 150
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    log = min(ys) > 0 and max(ys) / min(ys) > 30
    low, high = spread(ys, log)
    panel = Panel(Scale(min(xs), max(xs), left, width - right), Scale(low, high, bottom, top, log))
    parts = panel.axes(x_unit=x_unit)
    for (name, points), colour in zip(series.items(), css, strict=False):
        parts += _series(panel, name, points, colour)
    return figure(width, height, label, parts)


def _series(panel: Panel, name: str, points: Points, css: str) -> list[str]:
    noisy = len(points) > 40
    drawn = smooth(points, max(3, len(points) // 12)) if noisy else points
    parts = [polyline(panel.place(points), f"{css} faint")] if noisy else []
    parts.append(polyline(panel.place(drawn), css))
    marked = drawn if len(drawn) <= 24 else [drawn[0], drawn[len(drawn) // 2], drawn[-1]]
    return parts + [
        dot(*place, css, tip(words.label_of(name), *at), 2.5)
        for place, at in zip(panel.place(marked), marked, strict=True)
    ]


def evolution(rows: Sequence[Mapping[str, Any]]) -> str:
    """Parameters, MACs and velocity error after each pruning step, one row a step; absent columns are left out.

    A refit of the outputs takes some of a step's error back: the paler end of a bar is what it took back.
    """
    columns = [column for column in _EVOLUTION if any(row.get(column[0]) is not None for row in rows)]
    if not columns:
        return ""
    names, panel, row_height, top = 280, 266, 27, 30
    parts = [text(names + panel * i, 14, title, "bar-name", "start") for i, (_, title, _) in enumerate(columns)]
    for index, row in enumerate(rows):
        y = top + index * row_height
        parts.append(text(names - 16, y + 10, str(row.get("title") or row["step"]), "bar-name", "end"))
        for place, (name, _, css) in enumerate(columns):
            if row.get(name) is not None:
                most = max(float(other[name]) for other in rows if other.get(name) is not None)
                scale = Scale(0, most or 1.0, 0, panel - 90)
                parts += _step_bars(names + panel * place, y + 1, scale, row[name], row.get(f"{name}_fitted"), css)
    width = names + panel * len(columns)
    return figure(width, top + row_height * len(rows), "Cost and velocity error after each pruning step", parts)


def _step_bars(x: float, y: float, scale: Scale, value: float, fitted: float | None, css: str) -> list[str]:
    shown = value if fitted is None else fitted
    bars = [] if fitted is None else [_bar(x, y, scale(value), f"{css} taken")]
    bars.append(_bar(x, y, scale(shown), f"{css} kept-bar"))
    label = words.number(shown) + ("" if fitted is None else f"  from {words.number(value)}")
    return [*bars, text(x + max(scale(value), scale(shown)) + 7, y + 9, label, "tick", "start")]


def sqnr_bars(metrics: Mapping[str, float]) -> str:
    """Bars of every SQNR in dB, with the least value that counts as a pass where there is one."""
    if not metrics:
        return ""
    left, track, row_height = 200, 420, 34
    scale = Scale(0, max(80.0, *metrics.values()), left, left + track)
    parts = []
    for index, (name, value) in enumerate(metrics.items()):
        y = 6 + index * row_height
        least = required_db(name)
        missed = least is not None and value < least
        parts.append(text(left - 12, y + 14, words.heading(name).removesuffix(" SQNR"), "bar-name", "end"))
        parts.append(_bar(left, y + 4, track, "track"))
        parts.append(_bar(left, y + 4, max(scale(value) - left, 0), "bad" if missed else "good"))
        note = "" if least is None else f"  ✗ below {least:g}" if missed else f"  ✓ at least {least:g}"
        parts.append(text(left + track + 12, y + 14, f"{value:.1f} dB{note}", "bar-value", "start"))
        if least is not None:
            parts.append(line(scale(least), y, scale(least), y + 18, "least"))
    return figure(left + track + 170, 6 + row_height * len(metrics), "Signal to quantization noise", parts)


def _bar(x: float, y: float, width: float, css: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="10" rx="2" class="bar {css}"/>'


def required_db(metric: str) -> float | None:
    """The least SQNR that this metric has to reach, or None if none is set."""
    return next((least for name, least in _SQNR_AT_LEAST_DB.items() if name in metric), None)
