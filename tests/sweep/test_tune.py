"""A sweep's workers under Ray Tune, on this machine as a cluster of one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compress import cli
from compress.errors import UserError
from compress.sweep.tune import check_ray, last_words
from tests.sleeper import write_recipe

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_S = 600


def sweep(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command in a process of its own, which heeds Ctrl-C: Ray is not to live on in the tests' own."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", "compress.cli", "sweep", "naps.py", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.slow
def test_tune_s_workers_share_one_study_and_go_on_after_ctrl_c(tmp_path: Path) -> None:
    pytest.importorskip("ray.tune")
    write_recipe(tmp_path, steps=20, nap_s=0.2)
    arguments = ["--trials", "3", "--ray", "2", "--ray-set", "cpu=0.5", "--json"]
    process = sweep(tmp_path, *arguments)
    deadline_s = time.monotonic() + PATIENCE_S
    while not list(tmp_path.glob("runs/sweeps/naps/trial-*/logs/*/steps.csv")) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130 and said.rstrip().endswith("Stopped; the same command continues."), said
    assert out == "" and "Traceback" not in said
    process = sweep(tmp_path, *arguments)
    out, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert json.loads(out)["trials"] == {"complete": 3} and "2 workers for Ray Tune, each with 0.5 cpu" in said
    for log in tmp_path.glob("runs/sweeps/naps/trial-*/logs/*/steps.csv"):
        assert len(log.read_text().split()) == 20, "a step was done again"


@pytest.mark.slow
def test_a_worker_that_fails_under_tune_is_one_message(tmp_path: Path) -> None:
    pytest.importorskip("ray.tune")
    write_recipe(tmp_path, fails=True)
    process = sweep(tmp_path, "--ray", "1", "--ray-set", "max_failures=0")
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2 and "Traceback" not in said
    assert "a worker failed: ArithmeticError: width" in said
    process = sweep(tmp_path, "--ray", "1", "--ray-set", "address=127.0.0.1:1")
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2 and "--ray-set: Ray does not answer ([Errno 111] Connection refused)" in said


def test_what_cannot_be_handed_to_ray_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    assert cli.main(["sweep", "naps.py", "--ray", "0"]) == 2
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    assert cli.main(["sweep", "naps.py", "--ray", "2"]) == 2
    said = capsys.readouterr().err
    assert "ray is 0" in said and "Install it with `pip install 'pocketdiff[ray]'`" in said
    assert not (tmp_path / "runs").exists()


def test_settings_of_a_worker_are_numbers() -> None:
    pytest.importorskip("ray.tune")
    assert check_ray(["gpu=0.5", "address=auto"]) == {"cpu": 1, "gpu": 0.5, "address": "auto"}
    for bad, says in (("gpu=many", "gpu is 'many'"), ("cpu=-1", "cpu is -1"), ("gpu", "'gpu' is no setting")):
        with pytest.raises(UserError, match=says):
            check_ray([bad])


def test_an_error_s_last_line_is_what_it_came_to() -> None:
    assert last_words("ray::x()\n  File y\ncompress.errors.UserError: runs: no. Mend it.\n") == "runs: no. Mend it."
    assert last_words("") == "nothing"
