"""What a plan will cost: parameters, time and memory of each stage, from what such stages cost before.

An estimate scales the wall time of an earlier artefact of the same kind by the number of samples it trained on
(steps x batch size); one made on the same processor or GPU is preferred, otherwise the machine is named.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from compress import provenance
from compress.artifact import Card, load_card
from compress.errors import UserError
from compress.pipeline import shown
from compress.plan import Action, Options, Plan, Step, artefacts
from compress.progress import duration
from compress.recipe import resolved_config

PUBLISHED = provenance.REPOSITORY / "reports" / "published"  # cards without weights, of runs on other machines


@dataclass(frozen=True)
class Estimate:
    """Of one stage; None where nothing is known. `basis` says what it rests on."""

    parameters_m: float | None = None
    wall_s: float | None = None
    peak_rss_gb: float | None = None
    basis: str = ""


def estimate_plan(plan: Plan, options: Options) -> list[Estimate]:
    """One estimate a step; a step that is not run costs no time."""
    history = read_history([options.out, options.runs, *options.shipped, PUBLISHED])
    known: float | None = None
    estimates = []
    for step in plan.steps:
        estimate = estimate_step(step, history, options.device)
        known = estimate.parameters_m or parameters_of(step, plan.teacher) or known  # later stages keep the network
        estimates.append(replace(estimate, parameters_m=known))
    return estimates


def estimate_step(step: Step, history: list[Card], device: str) -> Estimate:
    """What a step costs."""
    if step.action is Action.SKIP:
        return Estimate(wall_s=0.0)
    if step.action is not Action.RUN:
        card = load_card(step.source or step.folder)
        return Estimate(card.metrics.get("parameters_m"), 0.0, None, shown(step.source) if step.source else "")
    config = resolved_config(step.stage)
    alike = [card for card in history if card.stage == step.stage.kind and work_of(card.recipe)]
    if not alike:
        return Estimate(None, None, None, "nothing like it was run here yet")
    best = min(alike, key=lambda card: _distance(card, step, config, device))
    scale = work_of(config) / work_of(best.recipe)
    basis = f"{best.name} of {best.created_utc[:10]} x {scale:.3g}"
    if not _same_machine(best, device):
        basis += f", made on {best.machine.get('gpu') or best.machine.get('processor', 'another machine')}"
    return Estimate(None, best.wall_s * scale, best.peak_rss_gb, basis)


def parameters_of(step: Step, teacher: Path | None) -> float | None:
    """Millions of parameters of the network that a stage makes of the teacher, where its configuration tells."""
    make_goal = getattr(step.stage, "goal", None)
    planned = getattr(step.stage, "budget", None) is not None  # then the stage itself finds the sizes
    if teacher is None or make_goal is None or planned:
        return None
    from compress.cost import parameters
    from compress.judge import spec_of

    return parameters(make_goal(spec_of(teacher))) / 1e6


def work_of(config: dict[str, Any]) -> float:
    """Training samples of a stage, or 1 where it does not train (the steps of `prune` are operators)."""
    steps, batch_size = config.get("steps", 1), config.get("batch_size", 1)
    return float(steps) * float(batch_size) if isinstance(steps, int | float) else 1.0


def read_history(roots: list[Path]) -> list[Card]:
    """The readable cards under these folders of artefacts that were computed, not copied."""
    cards: dict[Path, Card] = {}
    for root in roots:
        for folder, _ in artefacts(root):
            try:
                card = load_card(folder)
            except UserError:
                continue
            if card.reused_from is None:
                cards[folder] = card
    return list(cards.values())


def plan_table(plan: Plan, options: Options) -> Table:
    """The plan as a table with a line of totals."""
    table = Table(
        "stage",
        "key",
        "action",
        "parameters",
        "time",
        "memory",
        "from",
        box=None,
        padding=(0, 2, 0, 0),
        show_footer=True,
    )
    estimates = estimate_plan(plan, options)
    for step, estimate in zip(plan.steps, estimates, strict=True):
        table.add_row(
            step.label,
            step.key[:8],
            step.action.value,
            "?" if estimate.parameters_m is None else f"{estimate.parameters_m:.1f} M",
            "?" if estimate.wall_s is None else duration(estimate.wall_s) if estimate.wall_s else "-",
            "" if estimate.peak_rss_gb is None else f"{estimate.peak_rss_gb:.1f} GB",
            estimate.basis,
        )
    unknown = sum(estimate.wall_s is None for estimate in estimates)
    total = duration(sum(estimate.wall_s or 0.0 for estimate in estimates))
    table.columns[0].footer = "in all"
    table.columns[4].footer = f"{total} + {unknown} unknown" if unknown else total
    table.columns[5].footer = f"{max((e.peak_rss_gb or 0.0 for e in estimates), default=0.0):.1f} GB"
    return table


def _distance(card: Card, step: Step, config: dict[str, Any], device: str) -> tuple[bool, bool, float]:
    scale = work_of(config) / work_of(card.recipe)
    return not _same_machine(card, device), card.recipe.get("name") != step.stage.name, max(scale, 1 / scale)


def _same_machine(card: Card, device: str) -> bool:
    here = provenance.machine()
    if device == "auto":
        device = "cuda" if Path("/dev/nvidiactl").exists() else "cpu"  # loading torch to look would cost seconds
    same = all(card.machine.get(name) == here[name] for name in ("processor", "cores"))
    return same and str(card.machine.get("device", "cpu")).startswith(device)
