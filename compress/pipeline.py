"""The whole flow: parent artefact in, artefact out, stage by stage; what is already there by key is not made again.

    teacher ─► prune ─► t2i ─► edit ─► joint ─► sft ─► reward ─► distill ─► quantize ─► deploy ─► report

Killed at any point, the same command continues: finished stages are kept, a training stage resumes its checkpoint.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import shutil
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress import provenance
from compress.addresses import without_passwords
from compress.artifact import Card, forget_paths, load_card, write_artifact, write_json
from compress.judge import examine
from compress.locks import locked
from compress.plan import SHIPPED, Action, Catalogue, Options, Plan, Step, make_plan
from compress.progress import LineProgress, TerminalProgress, duration, make_progress
from compress.recipe import Recipe, resolved_config
from compress.runfolder import RunFolder
from compress.sharing import planning_lock, stage_lock
from compress.stages.context import StageContext, StageResult
from compress.store import Store

if TYPE_CHECKING:
    import torch

SCORE = "overall"  # a stage with this metric has scored itself


def run(recipe: Recipe, options: Options, progress: TerminalProgress | LineProgress | None = None) -> Plan:
    """Carries out a recipe in `options.out` and returns the plan it followed; every artefact of it is then in place.

    Raises UserError, before any work, for every mistake it can find; KeyboardInterrupt leaves a resumable folder.
    """
    recipe.check()
    progress = progress or make_progress()

    def wait_for(who: str) -> None:
        progress.message(f"{shown(options.out)}: {who} is working here; waiting for it")

    with RunFolder(options.out).locked(wait_for if options.wait else None) as folder:
        with locked(planning_lock(options.runs), shared=True):
            plan = make_plan(recipe, options)
            folder.begin(plan.redo)
            journal = Journal(folder.path, plan)
        progress.message(f"{recipe.name}: {len(plan.steps)} stages in {shown(folder.path)}")
        try:
            for position in range(len(plan.steps)):
                plan = carry_out(plan.steps[position], plan, options, folder, progress)
                journal.finished(plan.steps[position])
        finally:
            progress.close()
        for stage, key in zip(recipe.stages, plan.keys, strict=True):
            if folder.keep_aside_unless(options.out / recipe.folder_of(stage), key):
                progress.message(f"{recipe.folder_of(stage)}: of another configuration, moved to {shown(folder.kept)}")
        folder.end(plan.redo)
        journal.close()
    return plan


def carry_out(
    step: Step, plan: Plan, options: Options, folder: RunFolder, progress: TerminalProgress | LineProgress
) -> Plan:
    """Brings one stage's artefact into the run folder; returns the plan with what has turned out since."""
    if step.action is Action.SKIP:
        folder.keep_aside_unless(step.folder, step.key)
        progress.message(f"{step.label}: not needed, a later stage is there already")
        return plan
    if step.action is Action.DONE:
        progress.message(f"{step.label}: done already ({step.key[:8]})")
    elif step.action is Action.REUSE:
        adopt(step, folder, options, progress)
    elif step.shared:
        plan = compute_once(step, plan, options, folder, progress)
    else:
        compute(step, plan, options, folder, progress)
        if plan.redo is not None:
            redo = dataclasses.replace(plan.redo, finished=(*plan.redo.finished, step.key))
            folder.note_finished(redo)
            plan = dataclasses.replace(plan, redo=redo)
    if options.store and step.shared:
        Store(options.store, options.runs).put(step.folder)
    folder.clear_work(step.key, step.label)
    return plan


def compute_once(
    step: Step, plan: Plan, options: Options, folder: RunFolder, progress: TerminalProgress | LineProgress
) -> Plan:
    """Computes a stage unless another process does or has done so since the plan was made; then reuses what it made."""

    def wait_for(who: str) -> None:
        progress.message(f"{step.label}: {who} is computing the same artefact; waiting for it")

    with stage_lock(options.runs, step.key, wait_for) as lock:
        if source := lock.made or made_since(step, options, lock.first):
            plan = plan.replaced(step, action=Action.REUSE, source=source)
            adopt(dataclasses.replace(step, source=source), folder, options, progress)
        else:
            compute(step, plan, options, folder, progress)
        lock.note_made(step.folder)
    return plan


def made_since(step: Step, options: Options, first: bool) -> Path | None:
    """An artefact that came about after the plan was made; of other runs there is none for who is `first` at its key,
    and a look at every card is spared."""
    store = Store(options.store, options.runs) if options.store else None
    return Catalogue([] if first else [options.out, options.runs], (), store).find(step.key)


def compute(
    step: Step, plan: Plan, options: Options, folder: RunFolder, progress: TerminalProgress | LineProgress
) -> Card:
    """Runs the stage and writes its artefact and card."""
    work = folder.work(step.key, plan.redo)
    device: Any = choose_device(options.device) if step.stage.uses_torch else None
    parent = plan.parent_of(step)
    parents = [describe("teacher", plan.teacher_card)] if plan.teacher_card else []
    if parent is not None and parent != plan.teacher:
        parents.insert(0, describe(parent.name, load_card(parent)))
    card = Card(name=step.label, stage=step.stage.kind, key=step.key, code_version=step.stage.code_version)
    card.parents, card.recipe = parents, resolved_config(step.stage)

    def build(out: Path) -> None:
        cache = folder.cache(options.runs / ".cache", plan.redo)
        watch = partial(options.watch, step.stage.name) if options.watch else None
        ctx = StageContext(out, work, parent, plan.teacher, device, progress, cache, watch, options.held)
        with provenance.Meter(work / "meter.json") as meter:
            result = call(step, ctx)
            forget_paths(out)
            judge_start_s = time.monotonic()
            judge = plan.recipe.judge.of(step.stage.name) if plan.recipe.judge and SCORE not in result.metrics else None
            if device is not None:
                result.metrics = examine(out, judge, device, progress) | result.metrics
            result.extra["judging_s"] = round(time.monotonic() - judge_start_s, 2)
            card.wall_s, card.peak_rss_gb = round(meter.wall_s, 2), round(meter.peak_rss_gb, 3)
        progress.close()
        fill(card, result, str(device or "cpu"))

    on = f", {device}" if device else ""
    progress.message(f"{step.label}: running ({step.stage.kind}, key {step.key[:8]}{on})")
    card = write_artifact(step.folder, build, card, keep=folder.kept)
    progress.message(f"{step.label}: finished in {duration(card.wall_s)}, peak {card.peak_rss_gb:.1f} GB")
    return card


def call(step: Step, ctx: StageContext) -> StageResult:
    """Imports the stage's runner ("module:function") and calls it from a fixed random state."""
    module, _, function = step.stage.runner.partition(":")
    if step.stage.uses_torch:
        import torch

        torch.manual_seed(step.stage.seed)
    result = getattr(importlib.import_module(module), function)(step.stage, ctx)
    if not isinstance(result, StageResult):
        raise TypeError(f"{step.stage.runner} returned {type(result).__name__}, not a StageResult")
    return result


def fill(card: Card, result: StageResult, device: str) -> None:
    """Enters a stage's result and this machine's provenance into the card."""
    card.metrics = {name: float(value) for name, value in result.metrics.items()}
    card.curves = {name: [[float(x), float(y)] for x, y in points] for name, points in result.curves.items()}
    # diffusers notes where a network was loaded from; that is no part of what it is
    card.extra, card.spec = result.extra, {k: v for k, v in result.spec.items() if k != "_name_or_path"}
    card.versions, card.git_commit = provenance.versions(), provenance.git_commit()
    card.machine, card.created_utc = provenance.machine(device), now_utc()


def adopt(step: Step, folder: RunFolder, options: Options, progress: TerminalProgress | LineProgress) -> Card:
    """Puts a hard link (or, across disks, a copy) of another artefact in place; its card says where it comes from."""
    assert step.source is not None
    source, card = step.source, load_card(step.source)
    card.reused_from = card.reused_from or origin(source, options)
    card.name = step.label

    def build(out: Path) -> None:
        for name in card.files:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source / name, out / name)
            except OSError:
                shutil.copy2(source / name, out / name)

    card = write_artifact(step.folder, build, card, keep=folder.kept)
    where = card.machine.get("gpu") or card.machine.get("processor", "another machine")
    made = f"made {card.created_utc[:10]} in {duration(card.wall_s)} on {where}"
    progress.message(f"{step.label}: REUSED from {card.reused_from}, same key {step.key[:8]} ({made})")
    return card


def origin(source: Path, options: Options) -> str:
    """Where a reused artefact lies, in words that hold on another machine too."""
    for root in SHIPPED:
        if root in source.parents:
            return f"{source.relative_to(provenance.REPOSITORY).as_posix()} (shipped)"
    return os.path.relpath(source, options.runs.parent)


def describe(name: str, card: Card) -> dict[str, str]:
    """A parent as a card names it."""
    return {"name": name, "key": card.key, "content_hash": card.content_hash}


def choose_device(device: str) -> torch.device:
    """ "auto" is the GPU if there is one."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def now_utc() -> str:
    """The time now, for example "2026-11-20T08:15:00Z"."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shown(path: Path) -> str:
    """A path as short as it can be written from here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


class Journal:
    """Keeps runs/<recipe>/recipe.json: the resolved recipe, the teacher, and what this run did for each stage."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._path = folder / "recipe.json"
        self._start_s = self._stage_start_s = time.monotonic()
        teacher, card = plan.teacher, plan.teacher_card
        self._run: dict[str, Any] = {
            "command": ["pocketdiff", *map(without_passwords, sys.argv[1:])],
            "fresh": bool(plan.redo and plan.redo.fresh),
            "started_utc": now_utc(),
            "finished_utc": None,
            "wall_s": None,
            "stages": [self._entry(step) for step in plan.steps],
        }
        self._record = plan.recipe.resolved() | {
            "teacher": {"folder": shown(teacher), **describe("teacher", card)} if teacher and card else None,
            "run": self._run,
        }
        write_json(self._path, self._record)

    def finished(self, step: Step) -> None:
        """Notes that a stage is in place, and how long that took in this run."""
        now_s = time.monotonic()
        entry = next(entry for entry in self._run["stages"] if entry["key"] == step.key)
        entry |= self._entry(step) | {"finished": True, "wall_s": round(now_s - self._stage_start_s, 2)}
        self._stage_start_s = now_s
        write_json(self._path, self._record)

    def close(self) -> None:
        """Notes the end of the run."""
        self._run["finished_utc"], self._run["wall_s"] = now_utc(), round(time.monotonic() - self._start_s, 2)
        write_json(self._path, self._record)

    @staticmethod
    def _entry(step: Step) -> dict[str, Any]:
        return {
            "name": step.stage.name,
            "kind": step.stage.kind,
            "folder": step.label,
            "key": step.key,
            "action": step.action.value,
            "source": shown(step.source) if step.source else None,
            "finished": False,
            "wall_s": None,
        }
