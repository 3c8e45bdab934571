"""Figures with one row a layer group: what pruning left of it, and what the output loses without part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from reports import words
from reports.layers import brief, by_block, in_order
from reports.sensitivity import Groupwise, Measured, Sensitivity
from reports.svg import Scale, dot, figure, line, polyline, text, tick_text

ROW_PX, BLOCK_GAP_PX, NAMES_PX = 15, 8, 246
WIDE_PX, NARROW_PX, SETTING_GAP_PX = 46, 17, 26
MOST_WIDE = 8  # columns whose cells have room for a number
COLOURS = ("s3", "s1", "s2")  # of the ratios, the smallest first


@dataclass(frozen=True)
class Cell:
    """What an arm left of a layer group: shares over its replicates, those that dropped the layer counting as 0."""

    share: float
    importance: float | None
    note: str


@dataclass(frozen=True)
class Column:
    """One arm's column of a heat map; a group that it has not is a layer that it dropped."""

    setting: str
    name: str
    cells: dict[str, Cell]


@dataclass(frozen=True)
class _Rows:
    """Where each group's row is, and the names to the left of them."""

    y: dict[str, float]
    names: list[str]
    bottom: float


def _rows(groups: Iterable[str], top: float) -> _Rows:
    y, names, at = {}, [], top
    for block, layers in by_block(dict.fromkeys(groups, None)).items():
        names.append(text(0, at + 11, block, "block-name", "start"))
        for group, _ in layers:
            y[group] = at
            if group != block:
                names.append(text(NAMES_PX - 12, at + 11, brief(group), "row-name", "end"))
            at += ROW_PX
        at += BLOCK_GAP_PX
    return _Rows(y, names, at - BLOCK_GAP_PX)


def heat_map(columns: Sequence[Column], label: str, value: Callable[[Cell], float | None] = lambda c: c.share) -> str:
    """One cell a layer group and arm, the stronger the more of it is left; an outline where the layer was dropped.

    Arms of one setting stand together. The share is a number on hover, and in the cell where there is room.
    """
    groups = in_order(name for column in columns for name in column.cells)
    if not groups:
        return ""
    wide = len(columns) <= MOST_WIDE
    width_px = WIDE_PX if wide else NARROW_PX
    top = 40.0 + max(6.4 * len(column.name) * 0.85 for column in columns)
    rows = _rows(groups, top)
    parts, x = list(rows.names), float(NAMES_PX)
    for setting, together in groupby(columns, key=lambda column: column.setting):
        parts.append(text(x, 14, setting, "bar-name", "start"))
        begins = x
        for column in together:
            parts.append(_slanted(x + width_px / 2, top - 6, column.name))
            for group in groups:
                parts.append(_cell(x, rows.y[group], width_px, group, column, value, wide))
            x += width_px
        x = max(x, begins + 6.6 * len(setting)) + SETTING_GAP_PX
    return figure(round(x - SETTING_GAP_PX + 40), round(rows.bottom + 4), label, parts)


def _slanted(x: float, y: float, content: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" transform="rotate(-58 {x:.1f} {y:.1f})"'
    return f'<text {place} class="tick" text-anchor="start">{escape(content)}</text>'


def _cell(
    x: float, y: float, width: float, group: str, column: Column, value: Callable[[Cell], float | None], wide: bool
) -> str:
    cell = column.cells.get(group)
    share = value(cell) if cell else None
    note = cell.note if cell else "layer dropped"
    style = f'class="share" style="--v:{share:.2f}"' if share is not None else 'class="dropped"'
    box = f'<rect x="{x + 0.5:.1f}" y="{y:.1f}" width="{width - 1:.0f}" height="{ROW_PX - 1}" rx="2" {style}>'
    mark = f"{box}<title>{escape(f'{column.name}, {group}: {note}')}</title></rect>"
    if wide and share is not None:
        mark += text(x + width / 2, y + 10.5, f"{100 * share:.0f} %", "in-cell")
    return mark


def sensitivity(found: Sensitivity) -> str:
    """One row a layer group: the velocity error when a share of its units alone is gone, a dot a share."""
    errors = [error.velocity_mse for group in found.groups for error in group.errors.values() if error.velocity_mse > 0]
    if not errors:
        return ""
    left, right, top = NAMES_PX, NAMES_PX + 560, 26.0
    low, high = min(errors), max(*errors, found.power)
    rows = _rows((group.name for group in found.groups), top)
    scale = Scale(low / 1.3, high * 1.3, left + 14, right, log=True)
    parts = list(rows.names)
    for tick in scale.ticks():
        parts.append(line(scale(tick), top - 4, scale(tick), rows.bottom, "grid"))
        parts.append(text(scale(tick), top - 9, tick_text(tick)))
    parts.append(line(scale(found.power), top - 4, scale(found.power), rows.bottom, "least"))
    colours = dict(zip(found.ratios_units, ratio_colours(found.ratios_units), strict=True))
    for group in found.groups:
        parts += _group_errors(group, rows.y[group.name] + ROW_PX / 2 - 1, scale, colours)
    return figure(right + 60, round(rows.bottom + 4), "Velocity error when one layer group alone is pruned", parts)


def ratio_colours(ratios: Sequence[float]) -> list[str]:
    """A colour class for each ratio; beyond three they begin again."""
    return [COLOURS[index % len(COLOURS)] for index in range(len(ratios))]


def _group_errors(group: Groupwise, y: float, scale: Scale, colours: Mapping[float, str]) -> list[str]:
    placed = [(ratio, error, _place(scale, error)) for ratio, error in group.errors.items()]
    parts = [polyline([(x, y) for _, _, x in placed], "s3 faint")]
    parts += [dot(x, y, colours[ratio], f"{group.name}: {told(group, error)}") for ratio, error, x in placed]
    parts += [text(x + 9, y + 4, words.number(error.velocity_mse, 2), "tick", "start") for _, error, x in placed[-1:]]
    return parts


def _place(scale: Scale, error: Measured) -> float:
    return scale(error.velocity_mse) if error.velocity_mse > 0 else scale.start - 10  # left of all that counts


def told(group: Groupwise, error: Measured) -> str:
    """An error in words: "without 16 of 64 channels 0.012"."""
    return f"without {error.dropped} of {group.units} {group.kind or 'unit'}s {words.number(error.velocity_mse)}"
