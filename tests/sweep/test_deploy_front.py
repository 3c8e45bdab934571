"""From a study's front to the last stage: which trials go on, what they share, what a failure or a kill leaves."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna._hypervolume import compute_hypervolume

from compress import cli
from compress.artifact import load_card
from compress.errors import UserError
from compress.progress import LineProgress
from compress.recipe import Recipe
from compress.sweep import Sweep, folder_of
from compress.sweep.deploy import chosen, deploy_front, failures
from compress.sweep.deployed import DONE, FAILED, INDEX, WAITING, DeployedIndex, Row, read_rows
from compress.sweep.front import best
from compress.sweep.study import find_study
from compress.sweep.trial import Setting
from compress.sweep.worker import run_sweep
from reports.study.deployed import deployed_rows, read_deployed
from reports.study.html import write_study
from reports.study.read import read_study
from tests.sleeper import SleepConfig, sleeping_sweep

TRIALS = 6


def finish(recipe: Recipe) -> Recipe:
    """A third stage; like all that follows, it cannot be changed by the trials."""
    return replace(recipe, stages=(*recipe.stages, SleepConfig(name="c", steps=2)))


def made(name: str = "naps") -> Sweep:
    return replace(sleeping_sweep(name, widths=8), finish=finish)


def setting(runs: Path, sweep: Sweep | None = None) -> Setting:
    sweep = sweep or made()
    return Setting(sweep, folder_of(sweep, runs), runs, "cpu", LineProgress(io.StringIO()))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    run_sweep(made(), tmp_path, TRIALS, progress=LineProgress(io.StringIO()))
    return tmp_path


def test_every_trial_of_the_front_goes_on_and_shares_its_stages(runs: Path) -> None:
    here = setting(runs)
    front = read_study(here.folder).front
    rows = deploy_front(here)
    folders = {trial.folder for trial in front}
    assert {row.folder for row in rows} == {f"deployed/{folder}" for folder in folders} and rows
    for row in rows:
        cards = {name: load_card(here.folder / row.folder / name) for name in ("10-a", "20-b", "30-c")}
        assert [card.reused_from is None for card in cards.values()] == [False, False, True]
        assert row.values == [cards["20-b"].metrics[name] for name in ("error", "width")]
        assert row.state == "deployed"
        assert row.stages == [{"folder": "30-c", "kind": "sleep", "action": "run", "metrics": cards["30-c"].metrics}]
    assert json.loads((here.folder / INDEX).read_text())["rows"][0]["state"] == "deployed"
    before = {path: path.stat().st_mtime_ns for path in here.folder.rglob("30-c/card.json")}
    again = deploy_front(here)
    assert [row.number for row in again] == [row.number for row in rows] and len(before) == len(rows)
    assert {path: path.stat().st_mtime_ns for path in here.folder.rglob("30-c/card.json")} == before


@pytest.mark.slow
def test_what_a_failure_leaves_is_told_and_the_same_command_goes_on(runs: Path) -> None:
    sweep = made()
    front = read_study(folder_of(sweep, runs)).front
    assert len(front) > 1, "nothing would go on"
    first = front[0].params

    def failing(recipe: Recipe) -> Recipe:
        whole = finish(recipe)
        last = replace(whole.stages[2], fails={n: getattr(recipe.stages[1], n) for n in first} == first)  # type: ignore[call-arg]
        return replace(whole, stages=(*recipe.stages, last))

    here = setting(runs, replace(sweep, finish=failing))
    rows = deploy_front(here)
    assert [row.state for row in rows if row.params == first] == ["failed"]
    assert {row.state for row in rows if row.params != first} == {"deployed"} and len(rows) == len(front)
    told = failures(rows, here.folder)
    assert told is not None and "ArithmeticError: width 1 fails" in str(told) and "same command goes on" in str(told)
    done = deploy_front(setting(runs))
    assert {row.state for row in done} == {"deployed"} and failures(done, here.folder) is None


def test_the_best_k_are_those_that_cover_most_together() -> None:
    points = np.array([[1.0, 9.0], [2.0, 8.5], [5.0, 5.0], [9.0, 1.0], [9.5, 9.5]])
    corner = np.array([10.0, 10.0])
    chosen_two = best(points, 2, corner)
    assert 2 in chosen_two  # 5 x 5 covers most
    others = {i: float(compute_hypervolume(points[[2, i]], corner)) for i in (0, 1, 3)}
    assert chosen_two == sorted([2, max(others, key=lambda i: others[i])])
    assert best(points, 4, corner) == [0, 1, 2, 3] and best(points, 5, corner) == [0, 1, 2, 3, 4]
    assert best(points, 99, corner) == [0, 1, 2, 3, 4] and best(points, 0, corner) == []
    assert best(np.array([[3.0], [1.0], [2.0]]), 2, np.array([3.0])) == [1, 2]


@pytest.mark.slow
def test_top_takes_the_front_first(runs: Path) -> None:
    study = find_study(made(), folder_of(made(), runs))
    front = {trial.number for trial in chosen(study, made(), None)}
    assert {trial.number for trial in chosen(study, made(), 1)} < front or len(front) == 1
    assert front <= {trial.number for trial in chosen(study, made(), TRIALS)}


def test_equal_parameters_count_once(tmp_path: Path) -> None:
    sweep = made()
    study = optuna.create_study(directions=["minimize", "minimize"])
    for _ in range(2):
        study.enqueue_trial({"seed": 0, "width": 2})
        trial = study.ask()
        sweep.sample(trial)
        study.tell(trial, (1.0, 2.0))
    assert [trial.number for trial in chosen(study, sweep, None)] == [0]


def test_mistakes_are_told_before_any_work(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no study 'other'\. Run `pocketdiff sweep` first"):
        deploy_front(setting(runs, made("other")))
    assert not folder_of(made("other"), runs).exists()
    with pytest.raises(UserError, match=r"there is no study 'naps'"):
        deploy_front(setting(runs), storage=f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(UserError, match="there is no storage of the kind"):
        deploy_front(setting(runs), storage="redis://nowhere")
    with pytest.raises(UserError, match=r"recipes end in stage 'b'.* Give the sweep a `finish`"):
        deploy_front(setting(runs, replace(made(), finish=None)))

    def meddling(recipe: Recipe) -> Recipe:
        return replace(recipe, stages=(replace(recipe.stages[0], seed=9), *recipe.stages[1:]))

    with pytest.raises(UserError, match="its `finish` changes stages that trial"):
        deploy_front(setting(runs, replace(made(), finish=meddling)))
    assert not (folder_of(made(), runs) / "deployed").exists()


def test_a_study_without_complete_trials_is_one_message(tmp_path: Path) -> None:
    failing = replace(sleeping_sweep("naps", fails=True), finish=finish)
    with pytest.raises(ArithmeticError):
        run_sweep(failing, tmp_path, 1, progress=LineProgress(io.StringIO()))
    with pytest.raises(UserError, match=r"study 'naps': no trial is complete\. Let `pocketdiff sweep` finish"):
        deploy_front(setting(tmp_path, failing))


def write_file(folder: Path) -> Path:
    path = folder / "naps.py"
    path.write_text("from tests.sweep.test_deploy_front import made as sweep\n")
    return path


@pytest.mark.slow
def test_the_command_writes_index_table_and_page(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_file(runs)
    command = ["deploy-front", str(path), "--runs", str(runs), "--c.steps", "3"]
    optuna.logging.set_verbosity(optuna.logging.INFO)  # as a process has it that begins
    assert cli.main([*command, "--json"]) == 0
    written = capsys.readouterr()
    assert "A new study" not in written.err
    line = json.loads(written.out)
    folder = folder_of(made(), runs)
    front = read_study(folder).front
    assert line["trials"] == {"deployed": len({trial.folder for trial in front})}
    assert line["stages_run"] + line["stages_reused"] == line["trials"]["deployed"]
    assert load_card(next(folder.glob("deployed/*/30-c"))).recipe["steps"] == 3
    assert cli.main(command) == 0
    page = (folder / "report.html").read_text()
    index = read_deployed(folder)
    assert index is not None and {trial.number for trial in index.trials} <= {trial.number for trial in front}
    for trial in index.trials:
        assert f'<a href="{trial.folder}/report.html">{trial.number}</a>' in page
        assert (folder / trial.folder / "report.html").is_file()
    assert "| deployed | deployed/trial-" in (folder / "deployed.md").read_text()
    assert cli.main([*command, "--top", "0"]) == 2
    assert "top is 0" in capsys.readouterr().err


@pytest.mark.slow
def test_workers_share_the_front_between_them(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_file(runs)
    # Long enough that a worker comes to a trial while the other is at it.
    command = ["deploy-front", str(path), "--runs", str(runs), "--top", "4", "--c.nap_s", "1.5", "--json"]
    assert cli.main([*command, "--workers", "2"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["trials"] == {"deployed": 4} and line["stages_run"] == 4
    folder = folder_of(made(), runs)
    steps = [path.read_text().splitlines() for path in folder.glob("deployed/**/steps.csv")]
    assert [len(lines) for lines in steps] == [2] * 4, "nothing was done twice"
    assert len({lines[0].partition(",")[2] for lines in steps}) == 2, "both worked"
    index = json.loads((folder / INDEX).read_text())
    assert [row["state"] for row in index["rows"]] == ["deployed"] * 4
    assert line["wall_s"] < sum(row["wall_s"] for row in index["rows"])
    assert cli.main([*command, "--workers", "0"]) == 2
    assert "--workers: workers is 0. Give 1 or more." in capsys.readouterr().err


def test_what_another_process_has_ended_is_taken_from_the_index(tmp_path: Path) -> None:
    def rows() -> list[Row]:
        return [Row(number=n, params={}, values=[0.0], folder=f"deployed/{n}") for n in range(3)]

    ours, theirs = DeployedIndex(tmp_path, made(), None), DeployedIndex(tmp_path, made(), None)
    mine, other = rows(), rows()
    other[0].state, other[0].ended_s = FAILED, ours.began_s - 1  # of a command before this one: to be tried again
    other[1].state, other[1].ended_s, other[1].reason = FAILED, ours.began_s + 1, "no space"
    mine[2].state, mine[2].ended_s = DONE, ours.began_s + 1
    theirs.write(other)
    ours.write(mine)
    assert [row.state for row in mine] == [WAITING, FAILED, DONE] and mine[1].reason == "no space"
    assert read_rows(tmp_path / INDEX) == mine


@pytest.mark.slow
def test_overrides_of_the_trials_name_the_sweep_that_had_them(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_file(runs)
    assert cli.main(["deploy-front", str(path), "--runs", str(runs), "--b.steps", "2"]) == 2
    assert "there is no study 'naps-" in capsys.readouterr().err


def index_of(folder: Path, **metrics: Any) -> Path:
    """A deployed.json of one trial with a chain to the phone."""
    stages = [{"folder": f"70-{kind}", "kind": kind, "metrics": found} for kind, found in metrics.items()]
    row = {"number": 3, "values": [0.5], "folder": "deployed/trial-3", "state": "deployed", "stages": stages}
    (folder / INDEX).write_text(json.dumps({"top": 1, "objectives": [{"label": "error"}], "rows": [row]}))
    return folder


def test_the_table_says_what_the_phone_costs(tmp_path: Path) -> None:
    distill, quantize = {"overall": 0.75}, {"overall": 0.745}
    deploy = {"overall": 0.74, "binary_mb": 9.4, "htp_vs_aimet_sqnr_db": 66.1}
    deploy |= {"emulated_pictures_count": 60, "htp_overall": 0.7, "float_overall": 0.6833}
    index = read_deployed(index_of(tmp_path, distill=distill, quantize=quantize, deploy=deploy))
    assert index is not None
    header, row = deployed_rows(index)
    told = dict(zip(header, row, strict=True))
    assert told["score, float"] == "0.750" and told["HTP − float"] == "−0.010" and told["binary, MB"] == "9.40"
    assert told["pictures emulated"] == "60" and told["emulator − float on those"] == "+0.017"
    assert told["emulator vs simulation, dB"] == "66.1" and told["state"] == "deployed"


def test_a_damaged_index_is_told(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(json.dumps({"objectives": [{"label": "e"}], "parameters": [], "trials": []}))
    (tmp_path / INDEX).write_text('{"rows": [{}]}')
    with pytest.raises(ValueError, match=r"deployed\.json is no index of deployed trials .* it makes nothing twice"):
        write_study(tmp_path)
