"""The pipeline makes each artefact once, resumes after anything, and says plainly what it reused."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compress.artifact import load_card, verify
from compress.errors import UserError
from compress.pipeline import run
from compress.plan import Action, Plan, make_plan
from compress.progress import LineProgress
from compress.recipe import Recipe
from compress.runfolder import RunFolder
from tests.toy import ToyConfig, numbers, options, toy_recipe

ROOT = Path(__file__).resolve().parent.parent


def go(recipe: Recipe, tmp_path: Path, **fields: object) -> tuple[list[Action], str]:
    """Runs quietly; what was done for each stage, and what was said."""
    said = io.StringIO()
    plan = run(recipe, options(tmp_path, **fields), LineProgress(said))
    return actions(plan), said.getvalue()


def actions(plan: Plan) -> list[Action]:
    return [step.action for step in plan.steps]


def walked(tmp_path: Path, stage: str, run: str = "toy") -> int:
    """How many updates were ever computed for a stage, by its log."""
    log = tmp_path / "runs" / run / "logs" / stage / "walk.csv"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_every_stage_becomes_a_folder_with_a_card_that_names_its_parent(tmp_path: Path) -> None:
    assert go(toy_recipe(), tmp_path)[0] == [Action.RUN] * 3
    a, b = (verify(tmp_path / "runs" / "toy" / name) for name in ("10-a", "20-b"))
    assert b.parents == [{"name": "10-a", "key": a.key, "content_hash": a.content_hash}]
    assert (b.stage, b.recipe["steps"], b.metrics["norm"] > 0) == ("toy", 3, True)
    assert b.wall_s >= 0 and b.peak_rss_gb > 0 and b.created_utc.endswith("Z")
    assert {"torch", "python"} <= set(b.versions) and b.machine["cores"] >= 1
    assert b.reused_from is None
    assert walked(tmp_path, "20-b") == 3
    record = json.loads((tmp_path / "runs" / "toy" / "recipe.json").read_text())
    assert [stage["action"] for stage in record["run"]["stages"]] == ["run"] * 3
    assert record["name"] == "toy" and record["run"]["finished_utc"]


def test_running_again_changes_nothing(tmp_path: Path) -> None:
    go(toy_recipe(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "toy").glob("*-*/*")}
    done, said = go(toy_recipe(), tmp_path)
    assert done == [Action.DONE] * 3 and said.count("done already") == 3
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "toy").glob("*-*/*")}


def test_a_change_recomputes_the_stage_and_all_after_it_and_keeps_the_old(tmp_path: Path) -> None:
    go(toy_recipe(), tmp_path)
    first = toy_recipe()
    changed = dataclasses.replace(
        first, stages=(first.stages[0], dataclasses.replace(first.stages[1], seed=7), first.stages[2])
    )
    old = numbers(tmp_path / "runs" / "toy" / "20-b")
    assert go(changed, tmp_path)[0] == [Action.DONE, Action.RUN, Action.RUN]
    assert numbers(tmp_path / "runs" / "toy" / "20-b") != old
    done, _ = go(first, tmp_path)  # back to the first: found by key among those kept
    assert done == [Action.DONE, Action.REUSE, Action.REUSE]
    assert numbers(tmp_path / "runs" / "toy" / "20-b") == old


def test_another_run_shares_what_it_has_in_common(tmp_path: Path) -> None:
    go(toy_recipe("a", "b", "c"), tmp_path)
    done, said = go(toy_recipe("a", "b", "d"), tmp_path, run="other")
    assert done == [Action.REUSE, Action.REUSE, Action.RUN]
    assert "20-b: REUSED from runs/toy/20-b, same key" in said
    card = load_card(tmp_path / "runs" / "other" / "20-b")
    assert card.reused_from == "runs/toy/20-b"
    assert (tmp_path / "runs" / "other" / "20-b" / "weights.safetensors").stat().st_nlink == 2


def ship(tmp_path: Path, *stages: str) -> None:
    """Publishes stages of the toy run, and deletes the run."""
    for stage in stages:
        shutil.copytree(tmp_path / "runs" / "toy" / stage, tmp_path / "shipped" / "toy" / stage)
    shutil.rmtree(tmp_path / "runs")


def test_a_shipped_stage_makes_everything_before_it_unnecessary(tmp_path: Path) -> None:
    go(toy_recipe("a", "b", "c"), tmp_path)
    ship(tmp_path, "20-b")
    done, said = go(toy_recipe("a", "b", "c"), tmp_path)
    assert done == [Action.SKIP, Action.REUSE, Action.RUN]
    assert "10-a: not needed" in said
    assert not (tmp_path / "runs" / "toy" / "10-a").exists()
    assert go(toy_recipe("a", "b", "c"), tmp_path)[0] == [Action.SKIP, Action.DONE, Action.DONE]


def test_a_live_stage_runs_although_it_is_shipped(tmp_path: Path) -> None:
    go(toy_recipe(), tmp_path)
    ship(tmp_path, "10-a", "20-b", "30-c")
    live = toy_recipe(live=("b",))
    assert go(live, tmp_path)[0] == [Action.REUSE, Action.RUN, Action.REUSE]
    assert go(live, tmp_path)[0] == [Action.DONE] * 3
    assert load_card(tmp_path / "runs" / "toy" / "20-b").reused_from is None


def test_a_live_stage_is_not_satisfied_by_a_copy(tmp_path: Path) -> None:
    go(toy_recipe(), tmp_path)
    ship(tmp_path, "20-b")
    assert go(toy_recipe("a", "b"), tmp_path)[0] == [Action.SKIP, Action.REUSE]
    assert go(toy_recipe("a", "b", live=("b",)), tmp_path)[0] == [Action.RUN, Action.RUN]


def test_fresh_reuses_nothing_and_starts_over_each_time(tmp_path: Path) -> None:
    go(toy_recipe(), tmp_path)
    ship(tmp_path, "10-a", "20-b", "30-c")
    go(toy_recipe(), tmp_path, run="other")
    assert go(toy_recipe(), tmp_path, fresh=True)[0] == [Action.RUN] * 3
    assert go(toy_recipe(), tmp_path, fresh=True)[0] == [Action.RUN] * 3
    assert go(toy_recipe(), tmp_path)[0] == [Action.DONE] * 3
    assert load_card(tmp_path / "runs" / "toy" / "30-c").reused_from is None


def test_from_recomputes_that_stage_and_those_after_it(tmp_path: Path) -> None:
    go(toy_recipe(), tmp_path)
    assert go(toy_recipe(), tmp_path, start="b")[0] == [Action.DONE, Action.RUN, Action.RUN]


def test_until_stops_and_a_later_run_goes_on(tmp_path: Path) -> None:
    assert go(toy_recipe(), tmp_path, until="b")[0] == [Action.RUN, Action.RUN]
    assert not (tmp_path / "runs" / "toy" / "30-c").exists()
    assert go(toy_recipe(), tmp_path)[0] == [Action.DONE, Action.DONE, Action.RUN]


def test_what_was_built_on_another_configuration_moves_aside_and_comes_back(tmp_path: Path) -> None:
    go(toy_recipe(), tmp_path)
    _, said = go(toy_recipe(seed=3), tmp_path, until="b")
    assert "30-c: of another configuration, moved to" in said
    assert not (tmp_path / "runs" / "toy" / "30-c").exists()
    assert go(toy_recipe(), tmp_path)[0] == [Action.REUSE] * 3


def test_fields_that_do_not_change_the_result_do_not_change_the_key(tmp_path: Path) -> None:
    go(toy_recipe(), tmp_path)
    assert go(toy_recipe(log_every=9), tmp_path)[0] == [Action.DONE] * 3
    assert go(toy_recipe(added_later=1), tmp_path)[0] == [Action.RUN] * 3


def test_a_raised_code_version_recomputes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go(toy_recipe(), tmp_path)
    monkeypatch.setattr(ToyConfig, "code_version", 2)
    assert go(toy_recipe(), tmp_path)[0] == [Action.RUN] * 3


def test_the_first_stage_starts_from_the_teacher_and_another_teacher_is_another_key(tmp_path: Path) -> None:
    go(toy_recipe("t"), tmp_path, run="teacher")
    go(toy_recipe("t", seed=5), tmp_path, run="second")
    teacher, second = (tmp_path / "runs" / name / "10-t" for name in ("teacher", "second"))
    go(toy_recipe("a", teacher=teacher), tmp_path)
    card = load_card(tmp_path / "runs" / "toy" / "10-a")
    assert card.parents[0]["content_hash"] == load_card(teacher).content_hash
    assert go(toy_recipe("a", teacher=teacher), tmp_path)[0] == [Action.DONE]
    assert go(toy_recipe("a", teacher=second), tmp_path)[0] == [Action.RUN]


def test_planning_writes_nothing(tmp_path: Path) -> None:
    assert actions(make_plan(toy_recipe(), options(tmp_path))) == [Action.RUN] * 3
    assert list(tmp_path.iterdir()) == []


def command(tmp_path: Path, step_s: float = 0.0, fresh: bool = False) -> subprocess.Popen:
    """The toy run in a process of its own, as a user would start it."""
    code = (
        "import io; from pathlib import Path; from tests.toy import *; from compress.pipeline import run;"
        f"run(toy_recipe('a', 'b', steps=12, step_s={step_s}), options(Path({str(tmp_path)!r}), fresh={fresh}))"
    )
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)


def lines(log: Path) -> int:
    """Of a log that may be moved away at any moment."""
    try:
        return len(log.read_text().splitlines())
    except FileNotFoundError:
        return 0


def wait_for_updates(tmp_path: Path, count: int, finished: int = 0) -> None:
    """Until the process has made `count` of the 12 updates of the stage it is in, after `finished` stages. The log of a
    stage that has just been finished may still lie there, whole."""
    for _ in range(600):
        logs = list((tmp_path / "runs" / "toy" / ".work").rglob("walk.csv"))
        stages = list((tmp_path / "runs" / "toy").glob("[0-9]*-*"))
        if len(stages) == finished and any(count <= lines(log) < 12 for log in logs):
            return
        time.sleep(0.05)
    raise AssertionError("the run did not start")


@pytest.mark.slow
@pytest.mark.parametrize(("fresh", "finished"), [(False, 0), (True, 1)])
def test_a_killed_run_goes_on_and_ends_with_the_same_weights(tmp_path: Path, fresh: bool, finished: int) -> None:
    run_folder, killed = tmp_path / "runs" / "toy", ("10-a", "20-b")[finished]
    process = command(tmp_path, step_s=0.2, fresh=fresh)  # it must not end before it is killed
    wait_for_updates(tmp_path, 4, finished)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert list(run_folder.glob(".tmp-*"))
    times = [(run_folder / name / "card.json").stat().st_mtime_ns for name in ("10-a", "20-b")[:finished]]
    assert command(tmp_path, fresh=fresh).wait() == 0
    assert not list(run_folder.glob(".tmp-*"))
    assert times == [(run_folder / name / "card.json").stat().st_mtime_ns for name in ("10-a", "20-b")[:finished]]
    log = (run_folder / "logs" / killed / "walk.csv").read_text().splitlines()
    assert len({line.split(",")[1] for line in log}) == 2  # two processes made this stage together
    assert 12 <= len(log) <= 13  # and repeated at most the update that was killed
    go(toy_recipe("a", "b", steps=12), tmp_path / "unbroken")
    for stage in ("10-a", "20-b"):
        assert numbers(run_folder / stage) == numbers(tmp_path / "unbroken" / "runs" / "toy" / stage)


@pytest.mark.slow
def test_two_processes_do_not_share_a_run_folder(tmp_path: Path) -> None:
    process = command(tmp_path, step_s=0.2)
    try:
        wait_for_updates(tmp_path, 1)
        with pytest.raises(UserError, match=f"process {process.pid} on .* is working in this run folder"):
            go(toy_recipe(), tmp_path)
    finally:
        process.kill()
        process.wait()


def test_a_damaged_artefact_stops_the_run_before_any_work(tmp_path: Path) -> None:
    go(toy_recipe(), tmp_path)
    weights = tmp_path / "runs" / "toy" / "20-b" / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    changed = toy_recipe()
    with pytest.raises(UserError, match=f"truncated: 100 of {len(whole)} bytes") as caught:
        go(changed, tmp_path)
    assert "pocketdiff run toy --from b" in caught.value.problems[0].remedy
    assert go(changed, tmp_path, start="b")[0] == [Action.DONE, Action.RUN, Action.RUN]
    assert weights.read_bytes() == whole


def test_a_damaged_shipped_artefact_is_named_and_one_in_another_run_is_passed_over(tmp_path: Path) -> None:
    go(toy_recipe(), tmp_path)
    (tmp_path / "runs" / "toy" / "30-c" / "weights.safetensors").unlink()
    assert go(toy_recipe(), tmp_path, run="other")[0] == [Action.REUSE, Action.REUSE, Action.RUN]
    ship(tmp_path, "30-c")
    with pytest.raises(UserError, match=r"weights.safetensors: the file is missing. Restore it with `git checkout"):
        go(toy_recipe(), tmp_path)


def test_a_missing_teacher_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no teacher in .*pocketdiff run teacher_scenes"):
        go(toy_recipe(teacher=tmp_path / "nowhere"), tmp_path)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"until": "d"}, "--until: there is no stage 'd' in toy. Choose one of: a, b, c."),
        ({"start": "e"}, "--from: there is no stage 'e'"),
        ({"start": "c", "until": "b"}, "c comes after b"),
    ],
)
def test_unknown_stages_are_named(tmp_path: Path, fields: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        go(toy_recipe(), tmp_path, **fields)


def test_a_run_folder_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"cannot be written .*Give a folder you may write to"):
        go(toy_recipe(), tmp_path)
    assert (tmp_path / "runs").read_text() == "a file where a folder should be"


def test_an_interrupted_redo_is_not_confused_with_another(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "x")
    with folder.locked():
        redo = make_plan(toy_recipe(), options(tmp_path, fresh=True)).redo
        assert redo is not None
        folder.begin(redo)
        done = dataclasses.replace(redo, finished=("key",))
        folder.note_finished(done)
        assert folder.unfinished(redo) == redo and folder.unfinished(redo).finished == ("key",)
        other = dataclasses.replace(redo, fresh=False, start="b")
        assert folder.unfinished(other).finished == ()
        folder.end(done)
        assert folder.unfinished(redo).finished == ()
