"""study.json holds what an Optuna study knows, in the words that reports read."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from compress.locks import locked
from compress.recipe import Recipe
from compress.study_record import IMPORTANCE_TRIALS, LOCK, STUDY, study_record, write_study_record
from compress.sweep import Objective, Sweep, load_sweep
from recipes import sweeps
from reports.study.read import read_study


def never(trial: Any) -> Recipe:
    raise AssertionError("the record needs no recipe")


SWEEP = Sweep(
    name="toy",
    description="A parabola against its size.",
    sample=never,
    objectives=(
        Objective(stage="a", metric="error", label="error"),
        Objective(stage="a", metric="score", label="score", maximize=True),
    ),
)


def judge(trial: optuna.Trial) -> tuple[float, float]:
    """`x` decides the error, `a` which scores are best, `b` which are worst; `depth` is asked of one kind only."""
    x = trial.suggest_float("x", 0.01, 10.0, log=True)
    kind = trial.suggest_categorical("kind", ["plain", "deep"])
    if kind == "deep":
        trial.suggest_int("depth", 1, 4)
    a, b = trial.suggest_float("a", 0.0, 1.0), trial.suggest_float("b", 0.0, 1.0)
    trial.set_user_attr("folder", f"trial-{trial.number}")
    trial.set_user_attr("worker", {"place": "here", "process": "process 1 on host", "attempts": 1})
    trial.set_constraint("size", x - 5.0)
    return (x - 1.0) ** 2, a**8 - b**8


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = optuna.create_study(directions=["minimize", "maximize"], sampler=optuna.samplers.RandomSampler(seed=0))
    made.optimize(judge, n_trials=5 * IMPORTANCE_TRIALS)
    made.tell(made.ask(), state=optuna.trial.TrialState.FAIL)
    return made


@pytest.mark.slow
def test_reports_read_what_was_written(study: optuna.Study, tmp_path: Path) -> None:
    write_study_record(study, SWEEP, tmp_path)
    read = read_study(tmp_path)
    assert [trial.number for trial in read.trials] == [trial.number for trial in study.trials]
    assert [trial.values for trial in read.trials[:-1]] == [tuple(trial.values) for trial in study.trials[:-1]]
    assert (read.trials[-1].state, read.trials[-1].values) == ("fail", ())
    assert read.trials[0].worker == "process 1 on host" and read.grid is None
    feasible = {trial.number for trial in study.trials if trial.values and trial.params["x"] <= 5.0}
    assert {trial.number for trial in read.comparable} == feasible
    assert {trial.number for trial in read.front} == {trial.number for trial in study.best_trials}


def test_parameters_keep_kind_range_and_condition(study: optuna.Study) -> None:
    record = study_record(study, SWEEP)
    assert sorted(record["parameters"], key=lambda row: row["name"]) == [
        {"name": "a", "kind": "float", "low": 0.0, "high": 1.0, "log": False},
        {"name": "b", "kind": "float", "low": 0.0, "high": 1.0, "log": False},
        {"name": "depth", "kind": "int", "low": 1, "high": 4, "log": False},
        {"name": "kind", "kind": "categorical", "choices": ["plain", "deep"]},
        {"name": "x", "kind": "float", "low": 0.01, "high": 10.0, "log": True},
    ]
    asked = {row["params"]["kind"] for row in record["trials"] if "depth" in row["params"]}
    assert asked == {"deep"}


def test_what_decides_an_objective_is_named(study: optuna.Study) -> None:
    found = study_record(study, SWEEP)["importance"]
    assert max(found["error"], key=found["error"].get) == "x"
    assert max(found["score"], key=found["score"].get) == "a"
    assert sum(found["score"].values()) == pytest.approx(1.0)


def test_few_trials_have_no_importances() -> None:
    few = optuna.create_study(directions=["minimize", "maximize"])
    few.optimize(judge, n_trials=IMPORTANCE_TRIALS - 1)
    assert study_record(few, SWEEP)["importance"] == {}


def test_times_are_utc(study: optuna.Study) -> None:
    trial, row = study.trials[0], study_record(study, SWEEP)["trials"][0]
    assert row["started_utc"].endswith("+00:00")
    assert row["wall_s"] == pytest.approx(trial.duration.total_seconds(), abs=1e-3)


def test_stages_come_from_the_trial_and_from_its_run_folder(study: optuna.Study, tmp_path: Path) -> None:
    done = {"name": "prune", "key": "k", "action": "reuse", "wall_s": 0.4, "finished": True, "folder": "10-prune"}
    waiting = {"name": "joint", "key": "l", "action": "run", "wall_s": None, "finished": False, "folder": "40-joint"}
    (tmp_path / "trial-0").mkdir()
    (tmp_path / "trial-0" / "recipe.json").write_text(json.dumps({"run": {"stages": [done, waiting]}}))
    rows = study_record(study, SWEEP, tmp_path)["trials"]
    assert rows[0]["stages"] == [{"name": "prune", "key": "k", "action": "reuse", "wall_s": 0.4}]
    assert rows[1]["stages"] == []
    told = optuna.create_study(directions=["minimize", "maximize"])
    for folder in ("trial-0", "elsewhere"):
        made = {"folder": folder, "stages": {"10-prune": "run"}}  # before it was interrupted
        told.add_trial(optuna.trial.create_trial(values=[1.0, 1.0], user_attrs=made))
    rows = study_record(told, SWEEP, tmp_path)["trials"]
    assert rows[0]["stages"] == [{"name": "prune", "key": "k", "action": "run", "wall_s": 0.4}]
    assert rows[1]["stages"] == [{"name": "prune", "key": "", "action": "run", "wall_s": 0.0}]


def test_a_stage_of_an_earlier_climb_took_what_its_card_tells(tmp_path: Path) -> None:
    stages = [
        {"name": name, "key": "k", "action": action, "wall_s": wall_s, "finished": True, "folder": folder}
        for name, action, wall_s, folder in (
            ("prune", "reuse", 0.0, "10-prune"),
            ("t2i", "reuse", 0.0, "20-t2i"),
            ("joint", "run", 7.0, "40-joint"),
        )
    ]
    for entry in stages:
        (tmp_path / "trial-0" / str(entry["folder"])).mkdir(parents=True)
        (tmp_path / "trial-0" / str(entry["folder"]) / "card.json").write_text(json.dumps({"wall_s": 226.37}))
    (tmp_path / "trial-0" / "recipe.json").write_text(json.dumps({"run": {"stages": stages}}))
    told = optuna.create_study(directions=["minimize", "maximize"])
    made = {"10-prune": "reused", "20-t2i": "run", "40-joint": "run"}
    told.add_trial(optuna.trial.create_trial(values=[1.0, 1.0], user_attrs={"folder": "trial-0", "stages": made}))
    (row,) = study_record(told, SWEEP, tmp_path)["trials"]
    found = [(stage["name"], stage["action"], stage["wall_s"]) for stage in row["stages"]]
    assert found == [("prune", "reused", 0.0), ("t2i", "run", 226.37), ("joint", "run", 7.0)]


@pytest.mark.parametrize("name", sorted(path.stem for path in Path(sweeps.__path__[0]).glob("scenes_*.py")))
def test_every_sweep_that_ships_has_a_record(name: str, tmp_path: Path) -> None:
    sweep = load_sweep(name)
    made = optuna.create_study(directions=["maximize" if entry.maximize else "minimize" for entry in sweep.objectives])
    write_study_record(made, sweep, tmp_path)
    assert [entry.label for entry in read_study(tmp_path).objectives] == [entry.label for entry in sweep.objectives]


def test_an_infinite_value_does_not_break_the_file(tmp_path: Path) -> None:
    made = optuna.create_study(directions=["minimize", "maximize"])
    made.add_trial(optuna.trial.create_trial(values=[float("inf"), 1.0]))
    write_study_record(made, SWEEP, tmp_path)
    (trial,) = read_study(tmp_path).trials
    assert trial.values == (None, 1.0) and not trial.judged


def test_a_grid_keeps_the_order_of_its_values_and_has_no_importances(study: optuna.Study, tmp_path: Path) -> None:
    grid = replace(SWEEP, grid={"width": [64, 32], "seed": [0, 1]})
    made = optuna.create_study(directions=["minimize", "maximize"])
    for number in range(IMPORTANCE_TRIALS):
        made.enqueue_trial({"width": (64, 32)[number % 2], "seed": 0})
        trial = made.ask()
        width = trial.suggest_categorical("width", [64, 32])
        trial.suggest_categorical("seed", [0, 1])
        made.tell(trial, (float(width), 1.0))
    assert study_record(made, replace(grid, grid=None))["importance"] != {} == study_record(made, grid)["importance"]
    write_study_record(made, grid, tmp_path)
    read = read_study(tmp_path)
    assert read.grid == {"width": (64, 32), "seed": (0, 1)} and list(read.grid) == ["width", "seed"]


def test_of_two_writers_the_later_one_has_the_last_word(tmp_path: Path) -> None:
    made = optuna.create_study(directions=["minimize", "maximize"])
    with locked(tmp_path / LOCK):
        writer = threading.Thread(target=write_study_record, args=(made, SWEEP, tmp_path))
        writer.start()
        writer.join(0.2)
        assert writer.is_alive() and not (tmp_path / STUDY).exists()
        made.add_trial(optuna.trial.create_trial(values=[1.0, 1.0]))  # seen, for the study is read under the lock
    writer.join()
    assert [trial.values for trial in read_study(tmp_path).trials] == [(1.0, 1.0)]
