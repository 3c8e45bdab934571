"""A sweep's trials are pipeline runs: they share prefixes, survive a kill, and leave a record for the report."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from compress import cli
from compress.artifact import load_card, save_card
from compress.errors import UserError
from compress.progress import LineProgress
from compress.recipe import Recipe
from compress.study_record import STUDY, study_record
from compress.sweep import Constraint, Objective, Sweep, folder_of, load_sweep, overridden, trial_folder
from compress.sweep.claims import Claims
from compress.sweep.outcome import hypervolume, outcome, stages
from compress.sweep.sampling import next_point
from compress.sweep.trial import value_of
from compress.sweep.worker import run_sweep
from reports.study.arms import arms
from reports.study.read import read_study
from tests.sleeper import sleeping_sweep
from tests.toy import toy_recipe


def sample(trial: Any) -> Recipe:
    """The first stage is the same in every trial; the second varies."""
    first = toy_recipe("a").stages[0]
    width = trial.suggest_int("width", 32, 3200, step=32)  # so many that none is drawn twice
    (second,) = toy_recipe("b", width=width).stages
    return Recipe(name="trial", description="", teacher=None, stages=(first, second))


def sweep(*metrics: str) -> Sweep:
    objectives = tuple(Objective(stage="b", metric=name, label=name) for name in metrics or ("norm",))
    return Sweep(name="toy", description="A toy.", sample=sample, objectives=objectives)


def go(tmp_path: Path, trials: int, **fields: Any) -> optuna.Study:
    return run_sweep(sweep(), tmp_path, trials, progress=LineProgress(io.StringIO()), **fields)


def test_trials_are_runs_that_share_their_first_stage(tmp_path: Path) -> None:
    study = go(tmp_path, 3)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    folders = {trial.user_attrs["folder"] for trial in study.trials}
    cards = [load_card(folder_of(sweep(), tmp_path) / folder / "10-a") for folder in folders]
    assert sum(card.reused_from is None for card in cards) == 1
    for trial in study.trials:
        folder = folder_of(sweep(), tmp_path) / trial.user_attrs["folder"]
        assert trial.values == [load_card(folder / "20-b").metrics["norm"]]


def test_an_objective_may_be_told_by_the_recipe_alone(tmp_path: Path) -> None:
    width = Objective(stage="b", metric="width", label="width", value=lambda recipe: float(recipe.stages[1].width))  # type: ignore[attr-defined]
    both = replace(sweep(), objectives=(*sweep().objectives, width))
    study = run_sweep(both, tmp_path, 2, progress=LineProgress(io.StringIO()))
    assert [trial.values[1] for trial in study.trials] == [trial.params["width"] for trial in study.trials]
    read = read_study(folder_of(both, tmp_path))
    assert [entry.label for entry in read.objectives] == ["norm", "width"] and len(read.comparable) == 2


def test_a_value_that_is_not_finite_fails_its_trial_alone(tmp_path: Path) -> None:
    odd = Objective(stage="b", metric="odd", label="oddness", value=lambda recipe: next(values))
    values = iter([math.nan, 1.0, math.inf, 2.0])
    said = io.StringIO()
    study = run_sweep(replace(sweep(), objectives=(odd,)), tmp_path, 2, progress=LineProgress(said))
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "FAIL", "COMPLETE"]
    assert study.trials[0].user_attrs["reason"] == "ArithmeticError: oddness is not finite"
    assert said.getvalue().count("failed (ArithmeticError: oddness is not finite)") == 2
    record = folder_of(sweep(), tmp_path) / study.trials[0].user_attrs["folder"] / "trial.json"
    assert json.loads(record.read_text())["values"] is None  # so it can be collected


def test_a_metric_that_was_not_finite_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    study = go(tmp_path, 1)
    out = folder_of(sweep(), tmp_path) / study.trials[0].user_attrs["folder"]
    recipe = sample(study.trials[0])
    with pytest.raises(UserError, match=r"there is no metric 'nrm'\. Name one of the card's metrics: .*norm"):
        value_of(Objective(stage="b", metric="nrm", label="x"), recipe, out)
    card = load_card(out / "20-b")
    card.metrics["norm"] = math.nan
    save_card(out / "20-b", card)
    with pytest.raises(ArithmeticError, match=r"^norm is not finite$"):
        value_of(sweep().objectives[0], recipe, out)


def test_a_trial_that_a_mistake_ended_can_be_collected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no metric 'nrm'"):
        run_sweep(sweep("nrm"), tmp_path, 1, progress=LineProgress(io.StringIO()))
    (record,) = folder_of(sweep(), tmp_path).glob("trial-*/trial.json")
    assert json.loads(record.read_text())["values"] is None


def test_trials_are_counted_over_all_runs_of_the_sweep(tmp_path: Path) -> None:
    go(tmp_path, 2)
    assert len(go(tmp_path, 3).trials) == 3
    assert len(go(tmp_path, 3).trials) == 3


def test_what_a_killed_worker_left_goes_on_under_its_number(tmp_path: Path) -> None:
    study = go(tmp_path, 1)
    folder = folder_of(sweep(), tmp_path)
    with Claims(study, sweep(), folder, 3, seed=0).next() as killed:
        assert killed is not None and not killed.taken_over
        sample(killed.trial)
    done = go(tmp_path, 3)
    assert [trial.state.name for trial in done.trials] == ["COMPLETE"] * 3
    assert done.trials[1].params == killed.trial.params and done.trials[1].user_attrs["worker"]["attempts"] == 2


def record_of(made: Sweep, runs: Path) -> dict[str, Any]:
    return json.loads((folder_of(made, runs) / STUDY).read_text())  # type: ignore[no-any-return]


def test_the_record_tells_every_trial(tmp_path: Path) -> None:
    study = go(tmp_path, 1)
    folder = folder_of(sweep(), tmp_path)
    record = record_of(sweep(), tmp_path)
    assert record.pop("storage") == "journal"
    assert record == json.loads(json.dumps(study_record(study, sweep(), folder)))
    (trial,) = record["trials"]
    assert trial["state"] == "complete" and (folder / trial["folder"] / "20-b").is_dir()
    assert (trial["params"], trial["values"]) == (study.trials[0].params, study.trials[0].values)
    assert [(stage["name"], stage["action"]) for stage in trial["stages"]] == [("a", "run"), ("b", "run")]
    assert record["objectives"][0]["metric"] == "norm" and record["grid"] is None


def test_a_trial_that_fails_is_in_the_record_too(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        run_sweep(sweep("speed"), tmp_path, 1, progress=LineProgress(io.StringIO()))
    (trial,) = record_of(sweep("speed"), tmp_path)["trials"]
    assert trial["state"] == "fail" and trial["values"] is None and "no metric 'speed'" in trial["reason"]


def test_a_trial_that_breaks_a_constraint_is_in_the_record_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.sweep.worker.MAX_INFEASIBLE", 2)
    first = Constraint(label="width", at_most=1.0, value=lambda recipe: 1.0 + recipe.stages[1].steps)
    tight = replace(sweep(), constraints=(first,))
    with pytest.raises(UserError, match="2 trials in a row broke a constraint"):
        run_sweep(tight, tmp_path, 1, progress=LineProgress(io.StringIO()))
    record = record_of(tight, tmp_path)
    assert record["constraints"] == [{"label": "width", "at_most": 1.0}]
    for trial in record["trials"]:
        assert trial["state"] == "pruned" and trial["constraints"][0] > 0 and "width is" in trial["reason"]
    assert len(record["trials"]) == 2


def test_a_metric_that_the_card_lacks_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no metric 'speed'.*Name one of the card's metrics: norm"):
        run_sweep(sweep("speed"), tmp_path, 1, progress=LineProgress(io.StringIO()))


def test_bad_requests_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--trials is 0"):
        go(tmp_path, 0)
    with pytest.raises(UserError, match="there is no sweep 'scenes_ratoi'"):
        load_sweep("scenes_ratoi")


def test_equal_parameters_have_one_folder() -> None:
    assert trial_folder({"a": 1, "b": "x"}) == trial_folder({"b": "x", "a": 1}) != trial_folder({"a": 2, "b": "x"})


def test_overrides_apply_to_every_trial_in_a_study_of_their_own(tmp_path: Path) -> None:
    changed = overridden(sweep(), ["--a.steps", "5"])
    assert overridden(sweep(), []) == sweep() and changed.name != "toy"
    study = run_sweep(changed, tmp_path, 1, progress=LineProgress(io.StringIO()))
    folder = folder_of(changed, tmp_path) / study.trials[0].user_attrs["folder"]
    assert load_card(folder / "10-a").recipe["steps"] == 5


def grid() -> Sweep:
    def sample(trial: Any) -> Recipe:
        seed, width = trial.suggest_categorical("seed", [0, 1]), trial.suggest_categorical("width", [64, 32])
        return replace(toy_recipe("b", width=width, seed=seed), name="trial")

    return replace(sweep(), name="grid", sample=sample, grid={"width": [64, 32], "seed": [0, 1]})


def test_a_grid_is_tried_whole_and_once(tmp_path: Path) -> None:
    progress = LineProgress(io.StringIO())
    assert len(run_sweep(grid(), tmp_path, 3, progress=progress).trials) == 3 and grid().size == 4
    whole = run_sweep(grid(), tmp_path, progress=progress)
    assert sorted((trial.params["width"], trial.params["seed"]) for trial in whole.trials) == [
        (32, 0),
        (32, 1),
        (64, 0),
        (64, 1),
    ]
    told = read_study(folder_of(grid(), tmp_path))
    assert told.grid == {"width": (64, 32), "seed": (0, 1)}
    assert [(arm.params, len(arm.trials)) for arm in arms(told)] == [({"width": 64}, 2), ({"width": 32}, 2)]


def test_the_command_prints_a_table_and_writes_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from tests.sweep.test_sweep import grid as sweep\n")
    command = ["sweep", str(path), "--runs", str(tmp_path), "--trials", "2"]
    page = folder_of(grid(), tmp_path) / "report.html"
    assert cli.main([*command, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["trials"] == {"complete": 2} and not page.exists()
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert f"Report: {page}" in out and "2 of 4 combinations finished." in page.read_text()


def test_a_combination_is_tried_twice_if_it_fails_and_once_otherwise() -> None:
    study = optuna.create_study()
    points = [{"width": width, "seed": seed} for width in (64, 32) for seed in (0, 1)]
    for point in points[:3]:
        study.enqueue_trial(point)
    trial = study.ask()  # asked for the first, and running: its parameters are not known yet
    assert next_point(grid(), study.trials, seed=0) == points[3]
    study.enqueue_trial(points[3])
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert next_point(grid(), study.trials, seed=0) == points[0]
    study.enqueue_trial(points[0])
    assert next_point(grid(), study.trials, seed=0) is None


def test_a_line_sums_the_study_up(tmp_path: Path) -> None:
    done = go(tmp_path, 3)
    line = outcome(done, sweep(), 1.0)
    widths = {trial.params["width"] for trial in done.trials}
    assert line["trials"] == {"complete": 3} and line["wall_s"] == 1.0
    assert line["stages_run"] == 1 + len(widths)  # the first stage once, the second for every width
    assert line["stages_run"] + line["stages_reused"] == 6


def test_trials_of_equal_parameters_are_one_run() -> None:
    attributes = {"folder": "trial-1", "stages": {"10-a": "reused", "20-b": "run"}}
    twin = optuna.trial.create_trial(value=1.0, user_attrs=attributes)
    assert stages([twin, twin]) == (1, 3)


def test_what_a_trial_computed_counts_although_the_first_try_failed() -> None:
    failed = optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL, user_attrs={"folder": "trial-1"})
    attributes = {"folder": "trial-1", "stages": {"10-a": "run", "20-b": "run"}}
    again = optuna.trial.create_trial(value=1.0, user_attrs=attributes)
    assert stages([failed, again]) == (2, 0)
    other = optuna.trial.create_trial(value=2.0, user_attrs=attributes | {"folder": "trial-2"})
    assert stages([failed, again, other]) == (4, 0)


def test_the_hypervolume_reaches_to_the_worst_values() -> None:
    made = sleeping_sweep("naps")  # error up to 300, width up to 100, both to be small
    front = [optuna.trial.create_trial(values=values) for values in ((100.0, 50.0), (200.0, 10.0), (400.0, 1.0))]
    # (300 - 100) x (100 - 50), and beside it (300 - 200) x (50 - 10); the third is worth nothing
    assert hypervolume(front, made) == 10_000 + 4_000
    assert hypervolume([], made) is None
    up = replace(made, objectives=tuple(replace(o, maximize=True, worst=None) for o in made.objectives))
    assert hypervolume(front[:2], up) == 0.0  # each is the worst in one of two
