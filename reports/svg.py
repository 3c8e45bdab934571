"""A small plotting kit that writes inline SVG: axes, lines, points with whiskers. Colours come from the page's CSS.

Own SVG rather than a plotting library's, because the page must follow the reader's light or dark theme, stay small, and
come out byte for byte the same each time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from reports import words

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Scale:
    """Maps data from [low, high] to pixels from `start` to `end`; logarithmic if `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 4) -> list[float]:
        """Round values inside the range, at least `count` of them on a linear scale."""
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high, count)


def linear_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within [low, high], the fewest that are at least `count`."""
    if high <= low:
        return [low]
    power = 10.0 ** math.ceil(math.log10(high - low))
    for step in (power, power / 2, power / 5, power / 10, power / 20, power / 50):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 >= count:
            break
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within [low, high], with 2 and 5 between them where there are fewer than three."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        ticks = [factor * 10.0**power for power in decades for factor in factors]
        inside = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(inside) >= 3:
            break
    return inside


def spread(values: Sequence[float], log: bool = False, margin: float = 0.06) -> tuple[float, float]:
    """Range of the values with a margin, never of zero width."""
    low, high = min(values), max(values)
    if log:
        return low / 1.15, high * 1.15
    pad = (high - low) * margin or abs(high) * 0.1 or 1.0
    return low - pad, high + pad


def tick_text(value: float) -> str:
    """A tick's label, without trailing zeros: 0.5, 2k, 1e-4."""
    if value and abs(value) >= 1000 and value % 100 == 0:
        return f"{value / 1000:g}k"
    return f"{value:g}".replace("-", "−") if 1e-4 <= abs(value) < 1e5 or value == 0 else f"{value:.0e}"


def text(x: float, y: float, content: str, css: str = "tick", anchor: str = "middle") -> str:
    """A piece of text at (x, y) in pixels; `css` is its class."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def polyline(points: Points, css: str) -> str:
    """A line through points given in pixels."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" class="line {css}"/>'


def dot(x: float, y: float, css: str, tip: str, radius: float = 3.5) -> str:
    """A point with a text that shows on hover."""
    mark = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="dot {css}"/>'
    reach = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="9" class="reach"/>'
    return f"<g>{mark}{reach}<title>{escape(tip)}</title></g>"


def figure(width: int, height: int, label: str, body: Sequence[str]) -> str:
    """The whole drawing; `label` tells a screen reader what it shows."""
    head = f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
    return f'{head} aria-label="{escape(label)}">{"".join(body)}</svg>'


@dataclass(frozen=True)
class Panel:
    """A rectangle with two scales, and the drawing of its axes."""

    x: Scale
    y: Scale

    def axes(self, y_unit: str = "", x_unit: str = "", x_ticks: int = 3, y_ticks: int = 3) -> list[str]:
        """Horizontal grid lines with their values, values along x, and both units."""
        left, right, bottom, top = self.x.start, self.x.end, self.y.start, self.y.end
        parts = []
        for value in self.y.ticks(y_ticks):
            y = self.y(value)
            parts += [line(left, y, right, y, "grid"), text(left - 6, y + 3.5, tick_text(value), anchor="end")]
        for value in self.x.ticks(x_ticks):
            parts.append(text(self.x(value), bottom + 15, tick_text(value)))
        parts.append(line(left, bottom, right, bottom, "axis"))
        if y_unit:
            parts.append(text(left - 6, top - 9, y_unit, "unit", "end"))
        if x_unit:
            parts.append(text(right, bottom + 29, x_unit, "unit", "end"))
        return parts

    def place(self, points: Points) -> list[tuple[float, float]]:
        """Data to pixels."""
        return [(self.x(x), self.y(y)) for x, y in points]


def thin(points: Points, most: int = 160) -> list[tuple[float, float]]:
    """At most `most` points: the means of equal runs, with the last point kept as it is."""
    points = list(points)
    if len(points) <= most:
        return points
    size = math.ceil(len(points) / (most - 1))
    runs = [points[start : start + size] for start in range(0, len(points), size)]
    means = [(sum(x for x, _ in run) / len(run), sum(y for _, y in run) / len(run)) for run in runs]
    return [*means, points[-1]]


def smooth(points: Points, window: int) -> list[tuple[float, float]]:
    """Centred moving average over `window` points, narrower towards both ends so that no value is made up."""
    half = window // 2
    out = []
    for index, (x, _) in enumerate(points):
        reach = min(half, index, len(points) - 1 - index)
        near = points[index - reach : index + reach + 1]
        out.append((x, sum(y for _, y in near) / len(near)))
    return out


def tip(name: str, x: float, y: float) -> str:
    """The hover text of a curve's point."""
    return f"{name}: {words.number(y, 4)} at {tick_text(x)}"
