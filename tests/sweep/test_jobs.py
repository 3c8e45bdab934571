"""A sweep's workers as submitit's jobs, on this machine instead of a cluster."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from compress import cli
from compress.errors import UserError
from compress.sweep.jobs import WorkerJob, executor, last_words, setting
from tests.sleeper import write_recipe

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@pytest.mark.slow
def test_jobs_work_on_one_study_and_the_command_waits_for_them(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("submitit")
    write_recipe(here, steps=2)
    command = ["sweep", "naps.py", "--trials", "4", "--submitit", "2", "--submitit-set", "cluster=local", "--json"]
    assert cli.main(command) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["trials"] == {"complete": 4} and "2 jobs submitted to local" in said.err
    assert len(list((here / "runs/sweeps/naps/submitit").glob("*_0_log.err"))) == 2


@pytest.mark.slow
def test_a_job_that_fails_stops_the_command_with_its_last_words(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("submitit")
    write_recipe(here, fails=True)
    assert cli.main(["sweep", "naps.py", "--submitit", "1", "--submitit-set", "cluster=local"]) == 2
    said = capsys.readouterr().err
    assert "failed: ArithmeticError: width" in said and "See what it says there." in said


@pytest.mark.slow
def test_what_ends_a_job_ends_its_worker(here: Path) -> None:
    write_recipe(here, steps=600, nap_s=0.2)
    job = WorkerJob(["sweep", "naps.py", "--trials", "1"], here)
    script = f"from compress.sweep.jobs import WorkerJob; WorkerJob({job._arguments!r}, {str(here)!r})()"
    code = f"import signal, sys; signal.signal(signal.SIGUSR2, lambda *_: sys.exit(3)); {script}"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=here, stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 600
    while not list(here.glob("runs/sweeps/naps/trial-*")) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    workers = psutil.Process(process.pid).children()
    process.send_signal(12)
    assert process.wait(600) == 3 and workers
    assert not workers[0].is_running()


def test_what_cannot_be_submitted_is_told(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(here)
    assert cli.main(["sweep", "naps.py", "--submitit", "0"]) == 2
    assert "submitit is 0" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"'timeout' is no setting\. Write it as KEY=VALUE"):
        setting("timeout")
    assert [setting(text) for text in ("a=1", "b=gpu", "c=0.5", "d=[1]")] == [
        ("a", 1),
        ("b", "gpu"),
        ("c", 0.5),
        ("d", "[1]"),
    ]
    monkeypatch.setitem(sys.modules, "submitit", None)  # as where it is not installed
    assert cli.main(["sweep", "naps.py", "--submitit", "2"]) == 2
    assert "Install it with `pip install 'pocketdiff[submitit]'`" in capsys.readouterr().err
    assert not (here / "runs").exists()


def test_settings_that_submitit_does_not_know_are_told(here: Path) -> None:
    pytest.importorskip("submitit")
    for bad in ("colour=red", "slurm_partion=gpu", "cluster=moon", "timeout_min=soon"):
        with pytest.raises(UserError, match="Use submitit's own names"):
            executor(here / "jobs", "naps", ["cluster=local", bad])


def test_a_log_s_last_words_are_the_worker_s(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("trial 0\nerror: runs: no. Mend it.\nsubmitit ERROR (now) - failed\nTraceback: more\n")
    assert last_words(log) == "runs: no. Mend it." and last_words(tmp_path / "none") == "nothing"
