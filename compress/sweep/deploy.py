"""From a study's front to the phone: its best trials, each run on to the last stage, and one index of what came out.

sweeps/NAME/deployed/trial-…/   a run of its own for each, which shares the trial's stages by key
sweeps/NAME/deployed.json       the index, written again after each of them

Any number of processes may be at it; each takes a trial that no other is at.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.artifact import CARD, load_card
from compress.errors import Problem, UserError, disk_error
from compress.locks import FileLock
from compress.overrides import apply_overrides
from compress.pipeline import run
from compress.plan import Options
from compress.recipe import Recipe
from compress.study_record import noted_stages
from compress.sweep.definition import Sweep, trial_folder
from compress.sweep.deployed import DONE, FAILED, WAITING, DeployedIndex, Row
from compress.sweep.front import best, losses_of, reference_of
from compress.sweep.study import find_study
from compress.sweep.trial import Setting, how_made

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

DEPLOYED, LOCKS = "deployed", ".locks"
DEVICE_STAGE = "deploy"  # the kind of the stage that a chain to the phone ends in
POLL_S = 2.0


@dataclass(frozen=True)
class Work:
    """A row of the index, and the recipe that leads from the trial to the phone."""

    row: Row
    recipe: Recipe
    own: int  # how many of the recipe's stages, from the first, were made as the trial's


def deploy_front(
    setting: Setting, storage: str | None = None, top: int | None = None, overrides: Sequence[str] = ()
) -> list[Row]:
    """Runs every trial of the front, or the `top` best, to the end of its recipe; returns the rows of the index.

    `overrides` change fields of the stages after the trials' own. Raises as `works_of` does.
    """
    return deploy(setting, works_of(setting, storage, top, overrides), top)


def works_of(
    setting: Setting, storage: str | None = None, top: int | None = None, overrides: Sequence[str] = ()
) -> list[Work]:
    """What there is to do. Raises UserError for a study that is missing, made by another space or without complete
    trials, and for a sweep that does not say how its trials go on."""
    study = find_study(setting.sweep, setting.folder, storage)
    works = [work_of(setting.sweep, trial, overrides) for trial in chosen(study, setting.sweep, top)]
    if problems := [problem for work in works for problem in work.recipe.problems()]:
        raise UserError(*dict.fromkeys(problems))
    return works


def deploy(setting: Setting, works: Sequence[Work], top: int | None) -> list[Row]:
    """Carries out what no other process is at, and returns all rows when all are done. A trial that fails does not keep
    the others from going on; its row says why."""
    rows = [work.row for work in works]
    index = DeployedIndex(setting.folder, setting.sweep, top)
    index.write(rows)
    while left := [work for work in works if work.row.state == WAITING]:
        with one_of(left, setting) as work:
            index.write(rows)  # who was at it before says there what came of it
            if work is not None and work.row.state == WAITING:
                place = len(works) - len(left) + 1
                setting.progress.message(f"trial {work.row.number}, {place} of {len(works)}: to the phone")
                carry_on(work, setting)
                index.write(rows)
    return rows


@contextmanager
def one_of(works: Sequence[Work], setting: Setting) -> Iterator[Work | None]:
    """The first that no other process is at, held for this one; None after a while in which there was none."""
    folder = setting.folder / DEPLOYED / LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    for work in works:
        lock = FileLock(folder / Path(work.row.folder).name)
        if lock.try_acquire():
            try:
                yield work
            finally:
                lock.release()
            return
    time.sleep(POLL_S)
    yield None


def chosen(study: optuna.Study, sweep: Sweep, top: int | None) -> list[FrozenTrial]:
    """The front, by number, or the `top` best trials; trials of equal parameters count once."""
    import optuna

    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    runs: dict[str, FrozenTrial] = {}
    for trial in complete:
        if all(map(math.isfinite, trial.values)):
            runs.setdefault(trial_folder(trial.params), trial)
    if not runs:
        remedy = "Let `pocketdiff sweep` finish at least 1 trial first."
        raise UserError.of("no trial is complete", f"study {sweep.name!r}", remedy)
    trials = list(runs.values())
    losses = losses_of([trial.values for trial in trials], sweep.objectives)
    if top is None:
        found = {trial_folder(trial.params) for trial in study.best_trials}
        return [trial for folder, trial in runs.items() if folder in found]
    return [trials[index] for index in best(losses, top, reference_of(losses, sweep.objectives))]


def work_of(sweep: Sweep, trial: FrozenTrial, overrides: Sequence[str]) -> Work:
    """The trial's whole recipe: its own stages, then what the sweep's `finish` adds."""
    import optuna

    own = sweep.sample(optuna.trial.FixedTrial(trial.params))
    whole = own if sweep.finish is None else sweep.finish(own)
    where = f"sweep {sweep.name!r}"
    if sweep.finish is None and own.stages[-1].kind != DEVICE_STAGE:
        what = f"its recipes end in stage {own.stages[-1].name!r}, and nothing says how they go on to the phone"
        raise UserError.of(what, where, "Give the sweep a `finish` that adds the stages up to deploy.")
    whole = apply_overrides(whole, overrides)
    if whole.stages[: len(own.stages)] != own.stages or whole.teacher != own.teacher:
        what = f"its `finish` changes stages that trial {trial.number} was judged by"
        raise UserError.of(what, where, "Let it keep teacher and stages, and add stages behind them.")
    row = Row(
        number=trial.number,
        params=dict(trial.params),
        values=list(trial.values),
        folder=f"{DEPLOYED}/{trial_folder(trial.params)}",
    )
    # Where the trial itself went to the phone, its last stage is what the index tells of.
    ends = min(len(own.stages), len(whole.stages) - 1)
    return Work(row, replace(whole, name=f"{sweep.name}-trial-{trial.number}"), ends)


def carry_on(work: Work, setting: Setting) -> None:
    """Runs a trial's whole recipe, and notes in its row what came of it; only a full disk and Ctrl-C go on up."""
    row, began_s, made = work.row, time.monotonic(), {}
    out = setting.folder / row.folder
    try:
        options = Options(out, setting.runs, device=setting.device, wait=True, store=setting.store)
        plan = run(work.recipe, options, setting.progress)
    except Exception as error:
        if disk_error(error):
            raise
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        row.state, row.reason = FAILED, reason
        setting.progress.message(f"trial {row.number}: failed ({reason})")
    else:
        row.state, made = DONE, how_made(plan)
    row.wall_s, row.ended_s = round(time.monotonic() - began_s, 2), time.time()
    row.stages = stages_of(work, out, made)


def stages_of(work: Work, out: Path, made: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the run noted of the stages after the trial's own, with the metrics on their cards."""
    kinds = {work.recipe.folder_of(stage): stage.kind for stage in work.recipe.stages[work.own :]}
    found = []
    for noted in noted_stages(out / "recipe.json"):
        folder = noted["folder"]
        if folder in kinds:
            metrics = load_card(out / folder).metrics if (out / folder / CARD).exists() else {}
            action = made.get(folder, noted["action"])
            found.append({"folder": folder, "kind": kinds[folder], "action": action, "metrics": metrics})
    return found


def failures(rows: Sequence[Row], where: Path) -> UserError | None:
    """One problem for each trial that did not get to the phone; None if all did."""
    problems = [
        Problem(
            f"trial {row.number} failed: {row.reason}", str(where / row.folder), "Mend it; the same command goes on."
        )
        for row in rows
        if row.state == FAILED
    ]
    return UserError(*problems) if problems else None
