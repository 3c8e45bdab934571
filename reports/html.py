"""Renders a run's report: `report.html`, one self-contained page, and `report.md`, its figures as tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from reports import findings, grid, plots, plots_learning, plots_pruning, words
from reports.collect import Run, collect
from reports.layers import brief
from reports.markdown import render_markdown
from reports.record import HEADLINES, Record
from reports.sensitivity import Sensitivity

Curves = dict[str, list[tuple[float, float]]]

TEMPLATES = Path(__file__).resolve().parent / "templates"


@dataclass(frozen=True)
class Curve:
    """One panel of curves: title, drawing, and (name, colour class) of each."""

    title: str
    figure: Markup
    legend: list[tuple[str, str]]


def write_report(folder: Path) -> Path:
    """Writes report.html and report.md into a run's folder, from its cards; returns the page's path.

    The same cards give the same bytes. Raises ReportError if no stage is finished or a card cannot be read.
    """
    run_folder = Path(folder)
    run = collect(run_folder)
    page = run_folder / "report.html"
    page.write_text(render_html(run), encoding="utf-8")
    page.with_suffix(".md").write_text(render_markdown(run), encoding="utf-8")
    return page


def render_html(run: Run) -> str:
    """The whole page as text; whatever the cards do not tell is left out."""
    pruned = run.stage("prune")
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            run=run,
            tiles=findings.tiles(run),
            summary=findings.summary(run),
            score_figure=Markup(plots.scores_over_stages(run.chain)),
            learning_figure=Markup(plots_learning.scores_over_samples(run.chain)),
            tasks=findings.task_table(run.chain),
            parts=list(dict.fromkeys(name for record in run.chain for name in record.parts)),
            grid=grid.build(run.chain),
            evolution=Markup(plots.evolution(pruned.evolution if pruned else [])),
            kept=findings.kept_by_block(run),
            criterion=pruned.recipe.get("criterion") if pruned else None,
            sensitivities=[_sensitivity(found) for found in run.sensitivities],
            curves=_curves(run),
            reward=_reward(run),
            sqnr_figure=Markup(plots.sqnr_bars(findings.sqnr(run))),
            parity=findings.parity(run),
            device_facts=findings.device_facts(run),
            versions=findings.versions(run.chain),
            links=findings.links(run),
        )
    )


def environment() -> jinja2.Environment:
    """The templates' environment: undefined names are errors, and everything that is not a figure is escaped."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals.update(words=words, data_uri=grid.data_uri, interval=plots.interval, asset=_asset, brief=brief)
    env.filters.update(number=words.number, score=words.score, signed=words.signed, duration=words.duration)
    env.filters.update(short=words.short, pretty=_pretty, capital=words.capital)
    return env


def _asset(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _sensitivity(found: Sensitivity) -> tuple[Sensitivity, Markup, list[tuple[float, str]]]:
    """What was measured, its figure, and the colour of each ratio."""
    colours = plots_pruning.ratio_colours(found.ratios_units)
    return found, Markup(plots_pruning.sensitivity(found)), list(zip(found.ratios_units, colours, strict=True))


def _curves(run: Run) -> list[tuple[Record, list[Curve]]]:
    """Each stage's curves: losses together, scores together, everything else by itself."""
    found = []
    for record in run.stages:
        rest = {name: points for name, points in record.curves.items() if points}
        if record is run.stage("reward"):
            for told in (_is_judged, _is_verdict):  # these stand in their own panels above
                _take(rest, told)
        groups = [("Loss", _take(rest, lambda n: n.startswith("loss"))), ("Verifier’s score", _take(rest, _is_verdict))]
        groups.append(("Reward in training", _take(rest, lambda n: n in {"reward_t2i", "reward_edit"})))
        groups += [(words.heading(name), {name: points}) for name, points in rest.items()]
        if figures := [_curve(title, series) for title, series in groups if series]:
            found.append((record, figures))
    return found


def _reward(run: Run) -> list[Curve]:
    """What the reward stage raised, and what it was meant to raise, on the same held-out requests."""
    record = run.stage("reward")
    if record is None:
        return []
    curves = dict(record.curves)
    panels = [
        ("Learned reward: what training raises", _take(curves, _is_judged)),
        ("Exact verifier: what it is meant to raise", _take(curves, _is_verdict)),
    ]
    return [_curve(title, series) for title, series in panels if series]


def _curve(title: str, series: Curves) -> Curve:
    colours = plots.colours(list(series))
    legend = [(words.label_of(name), colour) for name, colour in zip(series, colours, strict=True)]
    return Curve(title, Markup(plots.chart(series, title, colours)), legend)


def _take(curves: Curves, wanted: Callable[[str], bool]) -> Curves:
    """Removes and returns the first few curves that are `wanted`; a panel has three colours."""
    names = [name for name, points in curves.items() if wanted(name) and points][: len(plots.COLOURS)]
    return {name: curves.pop(name) for name in names}


def _is_judged(name: str) -> bool:
    return name.startswith("judged_reward")


def _is_verdict(name: str) -> bool:
    return name in HEADLINES or name.startswith("verif")
