"""The collector frees what something beats, counts shared files once, and takes nothing that is needed."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from compress import cli, garbage
from compress.artifact import verify
from compress.garbage import COLLECTED, collect, front
from compress.pipeline import run
from compress.plan import Options, artefacts
from compress.progress import LineProgress
from compress.recipe import Recipe
from compress.runfolder import RunFolder
from compress.sweep import folder_of
from compress.sweep.worker import run_sweep
from tests.sleeper import SleepConfig, sleeping_sweep

KB = 1e-6  # in GB


def trial(runs: Path, name: str, values: tuple[float | None, ...] | None, seed: int = 0, age_s: int = 0) -> Path:
    """A trial of stages a (100 kB, shared by equal seeds) and b (10 kB, its own)."""
    sweep = runs / "sweeps" / "naps"
    sweep.mkdir(parents=True, exist_ok=True)
    objectives = [{"maximize": False}, {"maximize": True}]
    (sweep / "study.json").write_text(json.dumps({"objectives": objectives}))
    stages = (
        SleepConfig(name="a", size_kb=100, seed=seed),
        SleepConfig(name=f"b_{name}", size_kb=10),
    )
    out = sweep / f"trial-{name}"
    made = Recipe(name="trial", description="", teacher=None, stages=stages)
    run(made, Options(out=out, runs=runs, shipped=()), LineProgress(io.StringIO()))
    (out / "trial.json").write_text(json.dumps({"values": values}))
    for folder in out.glob("*-*"):
        os.utime(folder, (1e9 - age_s, 1e9 - age_s))
    return out


def gone(found: object) -> list[str]:
    return [f"{item.trial.name}/{item.folder.name}" for item in found.items]  # type: ignore[attr-defined]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two on the front (small first value, large second), two that are beaten, one of which shares its first stage."""
    trial(tmp_path, "best", (1.0, 1.0))
    trial(tmp_path, "also", (2.0, 2.0), seed=1)
    trial(tmp_path, "twin", (3.0, 0.0), age_s=9)
    trial(tmp_path, "beaten", (3.0, 1.0), seed=2, age_s=5)
    return tmp_path


def test_the_beaten_go_oldest_first_and_the_front_stays(runs: Path) -> None:
    found = collect(runs / "sweeps", runs, 0.0)
    assert gone(found) == ["trial-twin/20-b_twin", "trial-beaten/10-a", "trial-beaten/20-b_beaten"]
    assert found.before_bytes - found.after_bytes == pytest.approx(120_000, rel=0.01)
    sweep = runs / "sweeps" / "naps"
    assert all(verify(sweep / f"trial-{name}" / "10-a") for name in ("best", "also", "twin"))
    assert not (sweep / "trial-beaten" / "10-a").exists() and not list(sweep.glob("*/.tmp-*"))
    kept = json.loads((sweep / "trial-beaten" / COLLECTED / "20-b_beaten.json").read_text())
    assert kept["metrics"]["width"] == 1.0


def test_nothing_goes_where_no_record_says_what_is_beaten(runs: Path) -> None:
    (runs / "sweeps" / "naps" / "study.json").unlink()
    assert gone(collect(runs / "sweeps", runs, 0.0)) == []


def test_no_more_goes_than_the_budget_asks(runs: Path) -> None:
    whole = collect(runs / "sweeps", runs, 1.0, dry=True)
    assert whole.items == () and whole.after_bytes == whole.before_bytes
    room = (whole.before_bytes - 5_000) / 1e9
    assert gone(collect(runs / "sweeps", runs, room, dry=True)) == ["trial-twin/20-b_twin"]


def test_a_shared_file_counts_once_and_is_free_with_its_last_link(tmp_path: Path) -> None:
    trial(tmp_path, "best", (1.0, 1.0), seed=1)
    trial(tmp_path, "one", (2.0, 1.0), age_s=9)
    trial(tmp_path, "two", (2.0, 1.0), age_s=5)
    found = collect(tmp_path / "sweeps", tmp_path, 0.0, dry=True)
    assert found.before_bytes == pytest.approx(2 * 100_000 + 3 * 10_000, rel=0.2)
    assert found.before_bytes - found.after_bytes == pytest.approx(100_000 + 2 * 10_000, rel=0.01)
    assert {"trial-one/10-a", "trial-two/10-a"} <= set(gone(found))
    other = tmp_path / "elsewhere.bin"
    os.link(tmp_path / "sweeps" / "naps" / "trial-two" / "10-a" / "zeros.bin", other)
    found = collect(tmp_path / "sweeps", tmp_path, 0.0)
    assert gone(found) == ["trial-one/20-b_one", "trial-two/20-b_two"]  # the first stage would free nothing


def test_living_and_interrupted_trials_keep_everything(runs: Path) -> None:
    sweep = runs / "sweeps" / "naps"
    (sweep / "trial-twin" / "trial.json").unlink()
    with RunFolder(sweep / "trial-beaten").locked():
        assert gone(collect(runs / "sweeps", runs, 0.0)) == []
    assert gone(collect(runs / "sweeps", runs, 0.0)) == ["trial-beaten/10-a", "trial-beaten/20-b_beaten"]


def test_what_a_living_run_elsewhere_is_about_to_reuse_stays(runs: Path) -> None:
    stage = SleepConfig(name="a", size_kb=100, seed=2)
    out = runs / "mine"
    made = Recipe(name="mine", description="", teacher=None, stages=(stage,))
    run(made, Options(out=out, runs=runs, shipped=()), LineProgress(io.StringIO()))
    for path in (out / "10-a").iterdir():
        path.unlink()
    (out / "10-a").rmdir()  # as if the plan to reuse it were made, and not yet carried out
    with RunFolder(out).locked():
        assert "trial-beaten/10-a" not in gone(collect(runs / "sweeps", runs, 0.0, dry=True))
    assert "trial-beaten/10-a" in gone(collect(runs / "sweeps", runs, 0.0, dry=True))


def test_a_failed_trial_and_its_scratch_go(tmp_path: Path) -> None:
    out = trial(tmp_path, "failed", None)
    (out / ".work" / "k").mkdir(parents=True)
    (out / ".work" / "k" / "checkpoint").write_bytes(bytes(5_000))
    assert sorted(gone(collect(tmp_path / "sweeps", tmp_path, 0.0))) == [
        "trial-failed/.work",
        "trial-failed/10-a",
        "trial-failed/20-b_failed",
    ]


@pytest.mark.parametrize("values", [(None, 9.0), (float("inf"), 9.0), (float("nan"), 9.0), (None, None)])
def test_a_trial_with_a_value_that_is_not_finite_is_beaten(tmp_path: Path, values: tuple[float | None, ...]) -> None:
    best = trial(tmp_path, "best", (1.0, 1.0), seed=1)
    trial(tmp_path, "endless", values)
    assert front(tmp_path / "sweeps" / "naps") == [best]
    assert gone(collect(tmp_path / "sweeps", tmp_path, 0.0)) == ["trial-endless/10-a", "trial-endless/20-b_endless"]


def test_files_that_workers_delete_or_make_meanwhile_are_passed_over(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps = runs / "sweeps"
    living, scratch = (sweeps / "naps" / name / ".work" / "k" for name in ("trial-best", "trial-beaten"))
    for folder in (living, scratch):
        folder.mkdir(parents=True)
        (folder / "checkpoint.part").write_bytes(bytes(5_000))
    listed = garbage.files_under

    def while_others_work(folder: Path) -> Iterator[Path]:
        for path in list(listed(folder)):
            if path == living / "checkpoint.part" or (path.suffix == ".part" and folder != sweeps):
                path.unlink()  # listed, and gone before it is looked at
            yield path
        (scratch / "made_later").write_bytes(bytes(5_000))

    monkeypatch.setattr(garbage, "files_under", while_others_work)
    found = collect(sweeps, runs, 0.0, dry=True)
    assert gone(found) == ["trial-twin/20-b_twin", "trial-beaten/10-a", "trial-beaten/20-b_beaten"]
    assert found.before_bytes - found.after_bytes == pytest.approx(120_000, rel=0.01)


def test_an_artefact_that_vanishes_meanwhile_is_no_candidate(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_a_ghost(trial: Path, depth: int) -> Iterator[tuple[Path, str]]:
        yield trial / "30-vanished", "k"
        yield from artefacts(trial, depth)

    monkeypatch.setattr(garbage, "artefacts", with_a_ghost)
    found = collect(runs / "sweeps", runs, 0.0, dry=True)
    assert gone(found) == ["trial-twin/20-b_twin", "trial-beaten/10-a", "trial-beaten/20-b_beaten"]


def test_the_command_says_what_and_removes_it_on_yes(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs)
    assert cli.main(["gc", "--keep-gb", "0", "--runs", "."]) == 0
    said, noise = capsys.readouterr()
    assert (
        noise == ""
        and "sweeps/naps/trial-beaten/10-a" in said
        and "would remove 3 artefacts" in said
        and "give --yes" in said
    )
    assert (runs / "sweeps/naps/trial-beaten/10-a").exists()
    assert cli.main(["gc", "--keep-gb", "0", "--runs", ".", "--yes"]) == 0
    assert "removed 3 artefacts" in capsys.readouterr().out
    assert not (runs / "sweeps/naps/trial-beaten/10-a").exists()
    assert cli.main(["gc", "--keep-gb", "-1"]) == 2
    assert "keep-gb is -1. Give 0 or more" in capsys.readouterr().err
    assert cli.main(["gc", "--keep-gb", "1", "--runs", "nowhere"]) == 2


def test_a_sweep_keeps_its_budget_after_every_trial(tmp_path: Path) -> None:
    sweep = sleeping_sweep("naps", size_kb=50)
    study = run_sweep(sweep, tmp_path, 6, progress=LineProgress(io.StringIO()), disk_gb=KB)
    best = {trial.user_attrs["folder"] for trial in study.best_trials}
    folders = {trial.user_attrs["folder"] for trial in study.trials}
    assert best < folders
    for name in folders:
        out = folder_of(sweep, tmp_path) / name
        assert (out / "20-b").exists() == (name in best) != (out / COLLECTED / "20-b.json").exists()
        assert name not in best or verify(out / "10-a")
