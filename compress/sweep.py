"""Optuna around the pipeline: each trial is a run of its own, and shares every stage it can with all other runs.

The study lives in a journal file, so a killed sweep goes on with the same command, and several processes may work on
one study. A trial that was killed is asked again with the same parameters and continues in its own run folder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.artifact import hash_of, load_card
from compress.errors import UserError
from compress.overrides import apply_overrides
from compress.pipeline import run
from compress.plan import Options
from compress.progress import LineProgress, TerminalProgress, make_progress
from compress.recipe import Recipe, load_module
from compress.runfolder import RunFolder
from compress.sweep_record import write_record

if TYPE_CHECKING:
    import optuna

TRIALS = 20  # of a search, where nobody says how many


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A metric on the card of one of a trial's stages; `label` names it for people, with its unit."""

    stage: str
    metric: str
    label: str
    maximize: bool = False


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What to search: `sample` turns an Optuna trial into a recipe; the objectives are traded off.

    With a `grid`, every combination of its values is tried once instead, a comparison whose table has a row for each;
    combinations that differ in `replicate` alone share their row, as mean and spread.
    """

    name: str
    description: str
    sample: Callable[[optuna.Trial], Recipe]
    objectives: tuple[Objective, ...]
    grid: dict[str, Sequence[Any]] | None = None
    replicate: str = "seed"

    @property
    def size(self) -> int | None:
        """How many trials the grid has; None without one."""
        return None if self.grid is None else math.prod(len(values) for values in self.grid.values())


def load_sweep(name: str) -> Sweep:
    """The sweep called `name` in recipes/sweeps, or the one in the Python file `name`."""
    sweep: Sweep = load_module(name, "recipes.sweeps", "sweep").sweep()
    return sweep


def overridden(sweep: Sweep, arguments: Sequence[str]) -> Sweep:
    """The sweep with these `--<stage>.<field> value` in every trial; a study of its own, since results differ."""
    if not arguments:
        return sweep

    def sample(trial: optuna.Trial) -> Recipe:
        return apply_overrides(sweep.sample(trial), arguments)

    return replace(sweep, name=f"{sweep.name}-{hash_of(list(arguments))[:6]}", sample=sample)


def run_sweep(
    sweep: Sweep,
    runs: Path,
    trials: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: TerminalProgress | LineProgress | None = None,
) -> optuna.Study:
    """Works on the study until `trials` trials are finished in all, by default the whole grid or 20; returns it.

    The record that reports read is written after each trial.
    """
    import optuna

    trials = (sweep.size or TRIALS) if trials is None else trials
    if trials < 1:
        raise UserError.of(f"--trials is {trials}", "command line", "Ask for at least 1 trial.")
    progress = progress or make_progress()
    folder = folder_of(sweep, runs)
    with RunFolder(folder).locked():  # only to create the folder, or to say why that fails
        study = open_study(sweep, folder, seed)
        requeue_killed(study, folder)

    def objective(trial: optuna.Trial) -> tuple[float, ...]:
        recipe = sweep.sample(trial)
        recipe.check()
        out = folder / trial_folder(trial.params)
        trial.set_user_attr("folder", out.name)
        progress.message(f"trial {trial.number}: {', '.join(f'{k} {v}' for k, v in trial.params.items())}")
        run(recipe, Options(out=out, runs=runs, device=device), progress)
        return tuple(value_of(objective, recipe, out) for objective in sweep.objectives)

    def note(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        write_record(study, sweep, folder)

    finished = optuna.trial.TrialState.COMPLETE
    try:
        if len(study.get_trials(deepcopy=False, states=(finished,))) < trials:
            enough = optuna.study.MaxTrialsCallback(trials, states=(finished,))
            study.optimize(objective, callbacks=[note, enough])
    finally:  # callbacks hear nothing of a trial that raised
        write_record(study, sweep, folder)
    return study


def folder_of(sweep: Sweep, runs: Path) -> Path:
    """Where a sweep keeps its study and its trials' runs."""
    return runs / "sweeps" / sweep.name


def trial_folder(params: dict[str, Any]) -> str:
    """A trial's run folder, by its parameters: asking the same again finds what was done."""
    return f"trial-{hash_of(params)[:12]}"


def open_study(sweep: Sweep, folder: Path, seed: int) -> optuna.Study:
    """The study in the sweep's journal, created if it is not there yet."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    directions = ["maximize" if objective.maximize else "minimize" for objective in sweep.objectives]
    study = optuna.create_study(study_name=sweep.name, storage=storage, directions=directions, load_if_exists=True)
    if sweep.grid is not None:
        study.sampler = optuna.samplers.GridSampler(sweep.grid, seed=seed)
    else:  # a resumed sampler must not draw the numbers of the first trials again
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), n_startup_trials=8)
    return study


def requeue_killed(study: optuna.Study, folder: Path) -> None:
    """Asks again for trials that a killed process left running; those of a living process hold their folder's lock."""
    import optuna

    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        try:
            with RunFolder(folder / trial_folder(trial.params)).locked():
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        except UserError:
            continue
        if trial.params:
            study.enqueue_trial(trial.params)


def value_of(objective: Objective, recipe: Recipe, out: Path) -> float:
    """The objective's value on the card of a finished trial."""
    stage = recipe.stages[recipe.index(objective.stage, "objective")]
    metrics = load_card(out / recipe.folder_of(stage)).metrics
    value = metrics.get(objective.metric)
    if value is None:
        remedy = f"Name one of the card's metrics: {', '.join(sorted(metrics))}."
        raise UserError.of(f"there is no metric {objective.metric!r}", f"stage {objective.stage!r}", remedy)
    return value
