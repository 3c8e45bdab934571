"""A sweep's trials are pipeline runs: they share prefixes, survive a kill, and leave a record for the report."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from compress import cli
from compress.artifact import load_card
from compress.errors import UserError
from compress.progress import LineProgress
from compress.recipe import Recipe
from compress.sweep import (
    Objective,
    Sweep,
    folder_of,
    load_sweep,
    open_study,
    overridden,
    requeue_killed,
    run_sweep,
    trial_folder,
)
from compress.sweep_record import RECORD, as_json
from reports.study import arms, read_study
from tests.toy import toy_recipe


def sample(trial: Any) -> Recipe:
    """The first stage is the same in every trial; the second varies."""
    first = toy_recipe("a").stages[0]
    width = trial.suggest_int("width", 32, 128, step=32)
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


def test_trials_are_counted_over_all_runs_of_the_sweep(tmp_path: Path) -> None:
    go(tmp_path, 2)
    assert len(go(tmp_path, 3).trials) == 3
    assert len(go(tmp_path, 3).trials) == 3


def test_a_killed_trial_is_asked_again(tmp_path: Path) -> None:
    study = go(tmp_path, 1)
    killed = study.ask()
    sample(killed)
    folder = folder_of(sweep(), tmp_path)
    requeue_killed(study, folder)
    assert study.trials[killed.number].state.name == "FAIL"
    resumed = open_study(sweep(), folder, seed=0).ask()
    sample(resumed)
    assert resumed.params == killed.params and resumed.number != killed.number


def test_the_record_tells_every_trial(tmp_path: Path) -> None:
    study = go(tmp_path, 1)
    folder = folder_of(sweep(), tmp_path)
    record = json.loads((folder / RECORD).read_text())
    assert record == json.loads(json.dumps(as_json(study, sweep())))
    (trial,) = record["trials"]
    assert trial["state"] == "complete" and (folder / trial["folder"] / "20-b").is_dir()
    assert (trial["params"], trial["values"]) == (study.trials[0].params, study.trials[0].values)
    assert record["objectives"] == [{"stage": "b", "metric": "norm", "label": "norm", "maximize": False}]


def test_a_trial_that_fails_is_in_the_record_too(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        run_sweep(sweep("speed"), tmp_path, 1, progress=LineProgress(io.StringIO()))
    (trial,) = json.loads((folder_of(sweep(), tmp_path) / RECORD).read_text())["trials"]
    assert trial["state"] == "fail" and trial["values"] is None


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
    assert told.grid == {"width": [64, 32], "seed": [0, 1]}
    assert [(arm.params, len(arm.trials)) for arm in arms(told)] == [({"width": 64}, 2), ({"width": 32}, 2)]


def test_the_command_prints_a_table_and_writes_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from tests.test_sweep import grid as sweep\n")
    assert cli.main(["sweep", str(path), "--runs", str(tmp_path), "--trials", "2"]) == 0
    page = folder_of(grid(), tmp_path) / "report.html"
    assert f"Report: {page}" in capsys.readouterr().out
    assert "2 of 4 combinations finished." in page.read_text()
    assert cli.main(["report", str(page.parent), "--publish"]) == cli.USER_ERROR
    assert "a sweep cannot be published" in capsys.readouterr().err
