"""A trial that falls behind while it trains is ended, by what a Lightning callback reports; the rest goes on."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from compress.errors import UserError
from compress.progress import LineProgress
from compress.recipe import Recipe
from compress.study_record import FOLDER, REASON
from compress.sweep import EarlyStop, Ladder, Objective, Sweep, folder_of
from compress.sweep.early import PRUNERS, STARTUP_TRIALS, Watch, pruner
from compress.sweep.sampling import SAMPLERS, kind_for_next, sampler, seed_of
from compress.sweep.study import open_study
from compress.sweep.worker import run_sweep
from reports.study.read import read_study
from tests.ramp import RampConfig
from tests.sleeper import sleeping_sweep


def sample(trial: Any) -> Recipe:
    """One stage that trains."""
    height = trial.suggest_float("height", 0.0, 1.0)
    return Recipe(name="ramp", description="", teacher=None, stages=(RampConfig(height=height),))


def sweep(**early: Any) -> Sweep:
    objective = Objective(stage="ramp", metric="score", label="score", maximize=True)
    stop = EarlyStop(stage="ramp", curve="score", first_step=2, **early)
    return Sweep(name="ramp", description="A ramp.", sample=sample, objectives=(objective,), early_stop=stop)


@pytest.mark.slow
def test_what_falls_behind_the_median_is_ended_within_its_stage(tmp_path: Path) -> None:
    made, folder = sweep(), folder_of(sweep(), tmp_path)
    study = open_study(made, folder)
    heights = [0.5, 0.6, 0.7, 0.8, 0.1, 0.9]
    for height in heights:
        study.enqueue_trial({"height": height})
    said = io.StringIO()
    study = run_sweep(made, tmp_path, len(heights), progress=LineProgress(said))
    assert len(study.trials) == len(heights)
    states = [trial.state.name for trial in study.trials]
    assert states[:STARTUP_TRIALS] == ["COMPLETE"] * 4 and states[4:6] == ["PRUNED", "COMPLETE"]
    behind = study.trials[4]
    # the points are at updates 1, 2, 4, 6, 8, and nothing is stopped before first_step
    assert behind.user_attrs[REASON] == "behind others by score after 2 steps of ramp"
    assert list(behind.intermediate_values) == [1, 2]
    assert list(study.trials[5].intermediate_values) == [1, 2, 4, 6, 8]
    assert study.trials[5].intermediate_values[8] == pytest.approx(0.9)
    assert "trial 4: stopped, behind others" in said.getvalue()
    # another sweep has the same point: its stage is there already, and so is its curve
    other = replace(made, name="other")
    open_study(other, folder_of(other, tmp_path)).enqueue_trial({"height": heights[0]})
    twin, first = run_sweep(other, tmp_path, 1, progress=LineProgress(io.StringIO())).trials[0], study.trials[0]
    assert twin.state.name == "COMPLETE" and twin.intermediate_values == pytest.approx(first.intermediate_values)
    told = {trial.number: trial for trial in read_study(folder).trials}
    assert told[4].state == "pruned" and "behind others" in told[4].reason and len(told[4].intermediate) == 2
    assert not list((folder / behind.user_attrs["folder"]).glob("10-ramp"))


def test_hyperband_is_optuna_s_with_the_steps_that_are_told() -> None:
    found = pruner(sweep(pruner="hyperband", last_step=18))
    assert isinstance(found, optuna.pruners.HyperbandPruner)
    study = optuna.create_study(study_name="brackets", direction="maximize", pruner=found)  # they follow from its name
    ended = []
    for height in [0.9, 0.8] + [0.1 + 0.01 * n for n in range(20)]:
        trial = study.ask()
        watch = Watch(trial, sweep().early_stop)  # type: ignore[arg-type]
        try:
            for step in range(1, 19):
                watch("ramp", step, {"score": height * step / 18, "loss": 1.0})
            study.tell(trial, height)
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            ended.append(height)
    assert ended and 0.9 not in ended  # the best of all is the best of its bracket, whichever that is


def test_other_stages_and_figures_are_not_reported_and_no_step_twice() -> None:
    study = optuna.create_study(direction="maximize", pruner=pruner(sweep()))
    trial = study.ask()
    watch = Watch(trial, sweep().early_stop)  # type: ignore[arg-type]
    watch("other", 3, {"score": 1.0})
    watch("ramp", 3, {"loss": 1.0})
    assert study.trials[0].intermediate_values == {}
    watch("ramp", 4, {"score": 0.5})
    again = Watch(trial, sweep().early_stop)  # type: ignore[arg-type]
    again("ramp", 4, {"score": 0.9})
    again("ramp", 6, {"score": 0.7})
    assert study.trials[0].intermediate_values == {4: 0.5, 6: 0.7}


def test_mistakes_are_told_at_once(tmp_path: Path) -> None:
    made = sweep(pruner="hyperband")
    rung = made.objectives
    bad = replace(made, objectives=(*rung, *rung), ladder=Ladder(rungs=((*rung, *rung),)))
    with pytest.raises(UserError) as told:
        run_sweep(bad, tmp_path, 1, progress=LineProgress(io.StringIO()))
    whats = [problem.what for problem in told.value.problems]
    assert len(whats) == 3 and "trades off 2 objectives" in whats[0] and "early_stop.last_step is None" in whats[2]
    with pytest.raises(UserError, match=f"Use one of {', '.join(PRUNERS)}"):
        run_sweep(sweep(pruner="mean"), tmp_path, 1, progress=LineProgress(io.StringIO()))
    with pytest.raises(UserError, match=r"there is no sampler 'grid'\. Use one of tpe, gp"):
        run_sweep(replace(sweep(), sampler="grid"), tmp_path, 1, progress=LineProgress(io.StringIO()))


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.slow) if k == "gp" else k for k in SAMPLERS])
def test_every_sampler_draws_the_same_for_the_same_seed(kind: str) -> None:
    made = sleeping_sweep("naps")

    def drawn() -> list[dict[str, Any]]:
        study = optuna.create_study(directions=["minimize", "minimize"])
        for number in range(12):
            study.sampler = sampler(number, kind)
            trial = study.ask()
            made.sample(trial)
            trial.set_constraint("width", trial.params["width"] - 65.0)
            study.tell(trial, (float(trial.params["seed"]), float(trial.params["width"])))
        return [trial.params for trial in study.trials]

    first = drawn()
    assert first == drawn() and len({tuple(params.items()) for params in first}) > 6


def test_studies_of_neighbouring_seeds_have_no_draw_in_common() -> None:
    seeds = [seed_of(seed, number) for seed in range(20) for number in range(200)]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**32 for seed in seeds)
    assert seed_of(3, 7) == seed_of(3, 7)


def test_a_gaussian_process_does_not_ask_twice_for_what_breaks_a_constraint() -> None:
    gp = replace(sweep(), sampler="gp")
    study = optuna.create_study()
    assert kind_for_next(gp, study.trials) == "gp"
    trial = study.ask()
    trial.set_constraint("size", 0.5)
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert kind_for_next(gp, study.trials) == "random" and kind_for_next(sweep(), study.trials) == "tpe"


def test_whoever_repeats_a_trial_is_made_to_draw_at_random() -> None:
    study = optuna.create_study()
    for params, expected in (({}, "random"), ({FOLDER: "trial-1"}, "tpe")):  # the second was stopped on its way
        trial = study.ask()
        for name, value in params.items():
            trial.set_user_attr(name, value)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        assert kind_for_next(sweep(), study.trials) == expected
