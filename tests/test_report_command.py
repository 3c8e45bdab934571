"""`pocketdiff report` finds out what it was given, and says at once everything that is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress.cli import build_parser
from compress.commands.report import main
from compress.errors import UserError

STUDY = {
    "objectives": [{"label": "error"}],
    "parameters": [],
    "trials": [{"number": 0, "state": "complete", "params": {}, "values": [0.5]}],
}


def report(*arguments: object) -> int:
    return main(build_parser().parse_args(["report", *map(str, arguments)]))


def run_folder(path: Path) -> Path:
    (path / "10-vae").mkdir(parents=True)
    (path / "10-vae" / "card.json").write_text(json.dumps({"name": "10-vae", "stage": "vae", "key": "k"}))
    return path


def test_a_sweeps_folder_gets_the_page_of_its_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.json").write_text(json.dumps(STUDY))
    assert report(tmp_path) == 0
    assert capsys.readouterr().out == f"Report: {tmp_path / 'report.html'}\n"
    assert "Report of a study" in (tmp_path / "report.html").read_text()


def test_a_run_folder_gets_the_page_of_the_run(tmp_path: Path) -> None:
    assert report(run_folder(tmp_path)) == 0
    assert "Report of a run" in (tmp_path / "report.html").read_text()


def test_several_folders_are_compared(tmp_path: Path) -> None:
    runs = [run_folder(tmp_path / name) for name in "ab"]
    with pytest.raises(UserError, match=r"the runs cannot be compared.*no scores to compare"):
        report(*runs)
    for run in runs:
        card = json.loads((run / "10-vae" / "card.json").read_text()) | {"metrics": {"overall": 0.5}}
        (run / "10-vae" / "card.json").write_text(json.dumps(card))
    assert report(*runs, "--out", tmp_path / "out") == 0
    assert "Comparison of runs" in (tmp_path / "out" / "comparison.html").read_text()


def test_a_damaged_study_is_named(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(UserError, match=r"the report cannot be written.*study\.json: not JSON"):
        report(tmp_path)


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    study, sweep = tmp_path / "study", tmp_path / "sweep"
    study.mkdir()
    sweep.mkdir()
    (study / "study.json").write_text(json.dumps(STUDY))
    (sweep / "journal.log").write_text("")
    with pytest.raises(UserError) as error:
        report(tmp_path / "nowhere", study, sweep, "--publish")
    said = [problem.what for problem in error.value.problems]
    assert said == [
        "there is no such folder",
        "the sweep has left no study.json yet",
        "a study cannot be compared",
        "--publish is for one run",
    ]
    with pytest.raises(UserError, match="--out is for comparisons"):
        report(study, "--out", tmp_path)
