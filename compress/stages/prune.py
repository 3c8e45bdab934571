"""Prunes the teacher to a student: no training, only inheritance, least squares and measuring."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import DreamLiteUNetModel
from torch import Tensor, nn

from compress.artifact import CARD, load_card
from compress.config.budget import UNIFORM
from compress.config.prune import PAIR, PruneConfig
from compress.data.scenes.dataset import latent_batches
from compress.errors import Problem, UserError
from compress.kept import Kept
from compress.pruning.budget.allocation import Scores
from compress.pruning.budget.goal import goal_within
from compress.pruning.budget.scores import stage_scores
from compress.pruning.calibration import noised, predictions, velocity_mse
from compress.pruning.criteria.layers import skip_errors
from compress.pruning.evolution import PLAIN, Evolution, Plan, Row, Samples, evolve, rehouse, target
from compress.pruning.features import TeacherFeatures
from compress.pruning.plan import Budget, plan_widths
from compress.pruning.reach import unreachable
from compress.pruning.remembered import RememberedScores
from compress.pruning.surgery import Bench, Draft
from compress.pruning.surgery.base import transformer_blocks
from compress.pruning.unstructured import baseline
from compress.stages.context import StageContext, StageResult
from students.spec import StudentSpec
from students.system import DiffusionSystem
from students.unet import load_unet

BATCH = 16
TABLE = "provenance.json"
UNSTRUCTURED = "unstructured"
SCORES = "scores"  # folder of the cache


def run(config: PruneConfig, ctx: StageContext) -> StageResult:
    """The artefact before in, student artefact out. Raises UserError before any work where no student can be made.

    That is the teacher, or a student that an earlier stage has pruned from it; errors are against the teacher in both.
    """
    ground = ground_of(config, ctx)
    parent, samples, measure = ground.parent, ground.samples, ground.measure
    plan = make_plan(config, parent, ground.system)
    chance = torch.Generator().manual_seed(config.seed)
    remembered = RememberedScores(Kept(ctx.cache / SCORES, share=True), samples.calibration)
    bench = Bench(
        samples.calibration, config.criterion, chance, config.kv_merge, config.layer_rule, remembered=remembered
    )
    if config.budget is not None and config.budget.allocation != UNIFORM:
        plan = make_plan(config, parent, ground.system, scores_of(parent, ground.system, bench))
    ctx.progress.start(len(plan.steps) + 2, "steps", "pruning")

    def tell(row: Row, draft: Draft) -> None:
        ctx.progress.advance(1, parameters_m=row.parameters_m, velocity_mse=row.velocity_mse)

    evolution = evolve(parent, plan, samples, bench, tell, measure.velocities, ground.features)
    rows = list(evolution.rows)
    if ctx.parent not in (None, ctx.teacher):
        rows[0] = replace(rows[0], title="the student so far")
    if config.unstructured_baseline:
        rows.append(unstructured_row(parent, evolution.rows, samples, measure))
    ground.system.with_unet(evolution.draft.unet).save(ctx.out)
    evolution.ledger.save(ctx.out / TABLE)
    mse = reopened_mse(ctx.out, ctx.device, samples, measure, not plan.goal.plain)
    return result(evolution, rows, mse, measure)


@dataclass(frozen=True)
class Reference:
    """What students are measured against: the teacher's velocities on the held-out samples, and its size."""

    velocities: list[Tensor]
    parameters_m: float


@dataclass(frozen=True)
class Ground:
    """What all students that are pruned from one network have in common, and no student changes."""

    system: DiffusionSystem
    parent: Any
    samples: Samples
    measure: Reference
    features: TeacherFeatures


def ground_of(config: PruneConfig, ctx: StageContext) -> Ground:
    """What this process has held since its last run, if that is the same; else laid now, and held if runs follow."""
    folder = ctx.parent or ctx.teacher
    assert folder is not None
    counts = config.calibration_samples, config.fitting_samples, config.held_out_samples
    cards = [load_card(place).content_hash for place in (folder, ctx.teacher) if place and (place / CARD).is_file()]
    known = (*cards, *counts, config.seed, str(ctx.device))
    if ctx.held is not None and cards:
        found, ground = ctx.held.get(config.kind, (None, None))
        if found != known:
            ctx.held[config.kind] = None, None  # two of them would take twice the memory
            ground = lay_ground(config, ctx, folder)
            ctx.held[config.kind] = known, ground
        return cast(Ground, ground)
    return lay_ground(config, ctx, folder)


def lay_ground(config: PruneConfig, ctx: StageContext, folder: Path) -> Ground:
    """Reads the network, draws the samples, and asks the teacher about them."""
    system = DiffusionSystem.load(folder, ctx.device)
    parent: Any = system.unet.eval().requires_grad_(False)
    make_plan(config, parent, system)  # tells mistakes before any work
    samples = draw_samples(config, system)
    measure = reference_of(ctx, parent, samples)
    return Ground(system, parent, samples, measure, TeacherFeatures(parent, samples.fitting))


def reference_of(ctx: StageContext, parent: nn.Module, samples: Samples) -> Reference:
    """The teacher's answers to the questions that the stage's students are asked."""
    teacher, asked = parent, samples.held_out
    if ctx.teacher is not None and ctx.teacher != ctx.parent:
        teacher = DiffusionSystem.load(ctx.teacher, ctx.device).unet.eval().requires_grad_(False)
        asked = [replace(batch, paired=isinstance(teacher, DreamLiteUNetModel)) for batch in asked]
    return Reference(predictions(teacher, asked), sum(p.numel() for p in teacher.parameters()) / 1e6)


def make_plan(config: PruneConfig, teacher: Any, system: DiffusionSystem, scores: Scores | None = None) -> Plan:
    """The steps to the goal; UserError where the teacher cannot become the goal. `scores` say which stages a budget
    takes from."""
    try:
        spec = StudentSpec.from_config(teacher.config, system.text_encoder.config.hidden_size)
    except ValueError as error:
        raise UserError.of(
            str(error), "teacher", "Use a U-Net of Stable Diffusion's, SDXL's or DreamLite's kind"
        ) from None
    _, height, width = system.latent_shape
    goal = reach(config, spec, height, width, system.text_encoder.config.max_position_embeddings, scores)
    return Plan(goal, config.steps, config.compensated, config.ridges)


def scores_of(teacher: torch.nn.Module, system: DiffusionSystem, bench: Bench) -> Scores:
    """What the criterion says of the teacher's channels and transformer blocks, stage by stage; of blocks what the
    output loses without them (LAPTOP-Diff), where that is the layer rule."""
    draft = rehouse(teacher, system.text_encoder.config.hidden_size)
    skipped = skip_errors(draft.unet, bench.batches[:1]) if bench.layer_rule == "laptop" else None
    return stage_scores(draft.spec, bench.saliency(draft), transformer_blocks(draft.unet), skipped)


def reach(
    config: PruneConfig, spec: StudentSpec, height: int, width: int, tokens: int, scores: Scores | None = None
) -> StudentSpec:
    """The goal, with the sizes that a budget leaves (of a forward on this latent and text); UserError where a teacher
    of `spec` cannot become it."""
    where = f"stage {config.name!r}"
    if config.budget is not None:
        goal = goal_within(config, spec, height, width, tokens, scores).spec
    else:
        goal = config.goal(spec)
    if len(spec.widths) != len(goal.widths):
        what = f"the teacher has {len(spec.widths)} stages, widths names {len(goal.widths)}"
        raise UserError.of(what, where, "Give one width a stage of the teacher.")
    if config.budget_parameters_m is not None or config.budget_macs_g is not None:
        budget = Budget(config.budget_parameters_m, config.budget_macs_g, None, height, width, tokens)
        goal = plan_widths(target(spec, goal, config.steps), spec, budget)
    if problems := [
        Problem(what, where, remedy) for what, remedy in unreachable(target(spec, goal, config.steps), spec)
    ]:
        raise UserError(*problems)
    return goal


def draw_samples(config: PruneConfig, system: DiffusionSystem) -> Samples:
    """Three disjoint draws of the world, noised: for importance, for least squares, for measuring."""

    def draw(count: int, seed: int) -> list[Any]:
        batches = latent_batches(system, "t2i", count, 1000 * config.seed + seed, BATCH)
        return noised(batches, seed, isinstance(system.unet, DreamLiteUNetModel))

    return Samples(
        draw(config.calibration_samples, 101), draw(config.fitting_samples, 102), draw(config.held_out_samples, 103)
    )


def unstructured_row(parent: nn.Module, rows: list[Row], samples: Samples, measure: Reference) -> Row:
    """NNCF's sparse network with as many weights as the student; its MACs and bytes are those it had."""
    began = time.perf_counter()
    found = baseline(parent, round(rows[-1].parameters_m * 1e6), samples.held_out, measure.velocities)
    return replace(
        rows[0],
        step=UNSTRUCTURED,
        title="baseline: single weights masked (NNCF)",
        parameters_m=found.parameters_m,
        velocity_mse=found.velocity_mse,
        wall_s=time.perf_counter() - began,
    )


def reopened_mse(folder: Path, device: torch.device, samples: Samples, measure: Reference, pair: bool = True) -> float:
    """The velocity error of the student as it was written, in its own input format."""
    student = load_unet(folder).to(device).eval()
    return velocity_mse(student, samples.held_out, measure.velocities, pair)


def result(evolution: Evolution, rows: list[Row], mse: float, measure: Reference) -> StageResult:
    """What the card says. `kept` is the heat map's: operator -> group -> units, how many stayed, their importance."""
    last = evolution.rows[-1]
    assert last.step in (PAIR, PLAIN)
    metrics = {
        "parameters_m": last.parameters_m,
        "macs_g": last.macs_g,
        "size_mb_w8_padded": last.size_mb_w8_padded,
        "ratio_parameters": last.parameters_m / measure.parameters_m,
        "velocity_mse": mse,
    }
    for row in rows:
        if row.step == UNSTRUCTURED:
            metrics["velocity_mse_unstructured"] = row.velocity_mse
    extra = {
        "evolution": [row.as_json() for row in rows],
        "kept": evolution.report.get("kept", {}),
        "depth": evolution.report.get("depth", {}),
    }
    return StageResult(metrics=metrics, extra=extra, spec=evolution.draft.spec.to_config())
