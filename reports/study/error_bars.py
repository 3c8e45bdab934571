"""The figure of a grid: its arms with error bars, setting by setting."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from reports import words
from reports.study.arms import CONTROL, Arm, Setting, arm_names
from reports.study.record import Study
from reports.svg import Scale, dot, figure, line, spread, text, tick_text

COLOURS = ("s2", "s1", "s3", "s4")  # of the objectives in one figure
ROW_PX, GAP_PX = 21, 26
LEAST_NAMES_PX, LETTER_PX = 138, 7.2  # room for the names; the width of a letter, rather too much than too little
PAGE_PX, WIDEST_PX = 1080, 300  # of the figure, and of a panel among several; one alone may be twice as wide
LEAST_PX = 84  # of a panel: three ticks; where many settings need more than the page, the figure scrolls


def draw(study: Study, settings: Sequence[Setting], indices: Sequence[int], label: str) -> str:
    """Mean and spread of every arm by some objectives of one unit: a row an arm, a panel a setting, one scale for all.

    A band marks where the control is by the last of the objectives.
    """
    names = arm_names(settings)
    arms = [arm for setting in settings for arm in setting.arms.values()]
    means = [arm.means[index] for arm in arms for index in indices]
    log = min(means) > 0 and max(means) / min(means) > 30
    bounds = spread([bound for arm in arms for index in indices for bound in _reach(arm, index, log)], log)
    names_px = max(LEAST_NAMES_PX, 16 + LETTER_PX * max(map(len, names)))
    widest = WIDEST_PX * (2 if len(settings) == 1 else 1)
    width = max(LEAST_PX, min(widest, (PAGE_PX - names_px) / len(settings) - GAP_PX))
    top, bottom = 28.0, 28.0 + ROW_PX * len(names)
    parts = [text(names_px - 14, top + ROW_PX * i + 15, name, "bar-name", "end") for i, name in enumerate(names)]
    for place, setting in enumerate(settings):
        left = names_px + place * (width + GAP_PX)
        scale = Scale(*bounds, left, left + width, log)
        parts += _frame(setting, scale, top, bottom)
        parts += _band(setting.arms.get(CONTROL), indices[-1], scale, top, bottom)
        for row, name in enumerate(names):
            if arm := setting.arms.get(name):
                parts += _arm(study, name, arm, indices, scale, top + ROW_PX * (row + 0.5))
    total = round(names_px + len(settings) * (width + GAP_PX))
    return figure(total, round(bottom + 24), label, parts)


def _reach(arm: Arm, index: int, log: bool) -> tuple[float, float]:
    """Both ends of the whisker; on a log scale the lower one is at most a factor of two away, as zero has no place."""
    mean, deviation = arm.means[index], arm.spreads[index] or 0.0
    return (max(mean - deviation, mean / 2) if log else mean - deviation), mean + deviation


def _frame(setting: Setting, scale: Scale, top: float, bottom: float) -> list[str]:
    parts = [text(scale.start, 13, setting.label, "bar-name", "start")]
    for tick in scale.ticks(3):
        parts.append(line(scale(tick), top, scale(tick), bottom, "grid"))
        parts.append(text(scale(tick), bottom + 15, tick_text(tick)))
    return [*parts, line(scale.start, bottom, scale.end, bottom, "axis")]


def _band(control: Arm | None, index: int, scale: Scale, top: float, bottom: float) -> list[str]:
    if control is None:
        return []
    low, high = (scale(bound) for bound in _reach(control, index, scale.log))
    width = max(high - low, 1.5)
    tip = f"<title>{escape(CONTROL)}: {words.plus_minus(control.means[index], control.spreads[index])}</title>"
    box = f'x="{low:.1f}" y="{top:.1f}" width="{width:.1f}" height="{bottom - top:.1f}"'
    return [f'<rect {box} class="control-band">{tip}</rect>']


def _arm(study: Study, name: str, arm: Arm, indices: Sequence[int], scale: Scale, y: float) -> list[str]:
    parts = []
    for place, index in enumerate(indices):
        css, at = COLOURS[place % len(COLOURS)], y + 5 * (place - (len(indices) - 1) / 2)
        low, high = (scale(bound) for bound in _reach(arm, index, scale.log))
        if high > low:
            parts.append(line(low, at, high, at, f"whisker {css}"))
        told = words.plus_minus(arm.means[index], arm.spreads[index])
        note = f"{name}, {study.objectives[index].label}: {told} (n = {len(arm.trials)})"
        parts.append(dot(scale(arm.means[index]), at, css, note, 3.2))
    return parts
