"""Workers that share a storage but no disk notice each other's dead, and nobody is taken for dead who is not."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from compress.progress import LineProgress
from compress.study_record import BEAT, REASON, WORKER
from compress.sweep.claims import MAX_ATTEMPTS, SILENT, Claims
from compress.sweep.heartbeat import Pulses, beating
from compress.sweep.storage import open_storage
from compress.sweep.study import open_study
from compress.sweep.worker import run_sweep
from tests.sleeper import sleeping_sweep, write_recipe

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_S = 600


def beats(study: optuna.Study, number: int = 0) -> Any:
    return study.get_trials(deepcopy=False)[number].user_attrs.get(BEAT)


def wait_for(condition: Any) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_trial_beats_while_it_is_worked_on_and_through_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study()
    trial, write, failures = study.ask(), study._storage.set_trial_user_attr, iter([OSError("away"), None])

    def flaky(*arguments: Any) -> None:
        if error := next(failures, None):
            raise error
        write(*arguments)

    monkeypatch.setattr(study._storage, "set_trial_user_attr", flaky)
    with beating(trial, every_s=0.005):
        wait_for(lambda: beats(study))
        first = beats(study)
        wait_for(lambda: beats(study) != first)
    last = beats(study)
    time.sleep(0.05)
    assert beats(study) == last
    study.tell(trial, 1.0)
    with beating(trial, every_s=0.005):
        time.sleep(0.05)  # a trial that has ended is no error, and left as it is
    assert beats(study) == last


def test_silence_is_counted_from_the_last_change(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("compress.sweep.heartbeat.time.monotonic", lambda: now_s)
    study, pulses = optuna.create_study(), Pulses()
    trial = study.ask()

    def silent_s() -> float:
        return pulses.silent_s(study.trials[0])

    assert silent_s() == 0.0
    now_s += 170
    assert silent_s() == 170.0
    trial.set_user_attr(BEAT, "later")
    now_s += 5
    assert silent_s() == 0.0
    now_s += 7
    assert silent_s() == 7.0


def test_a_silent_trial_from_elsewhere_fails_and_its_copy_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compress.sweep.claims.SILENCE_S", 0.05)
    sweep = sleeping_sweep("naps")
    study = open_study(sweep, tmp_path)
    ours = Claims(study, sweep, tmp_path, 2, seed=0)
    for attempts in (3, MAX_ATTEMPTS):
        trial = study.ask()
        sweep.sample(trial)
        trial.set_user_attr(WORKER, {"place": "another disk", "process": "process 7 on moon", "attempts": attempts})
    with ours.next() as claim:
        assert claim is None  # at first sight nobody is dead
    time.sleep(0.1)
    with ours.next() as claim:
        assert claim is not None and claim.trial.number == 2 and not claim.taken_over
        assert sweep.sample(claim.trial).stages and claim.trial.params == study.trials[0].params
        assert claim.trial.user_attrs[WORKER]["attempts"] == 4
        with ours.next() as other:  # a trial of this disk is judged by its lock, however long it is silent
            assert other is not None and other.trial.number == 3
            time.sleep(0.1)
            with ours.next() as none:
                assert none is None
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL", "RUNNING", "RUNNING"]
    assert {trial.user_attrs.get(REASON) for trial in study.trials[:2]} == {SILENT}


def test_a_worker_that_was_taken_for_dead_says_so_and_goes_on(tmp_path: Path) -> None:
    naps, told = sleeping_sweep("naps"), []

    def bury(recipe: Any) -> float:
        if not told:
            study = open_study(sweep, tmp_path / "sweeps" / "naps")
            told.append(study.tell(0, state=optuna.trial.TrialState.FAIL))
            study.enqueue_trial(study.trials[0].params, user_attrs=study.trials[0].user_attrs)
        return 1.0

    sweep = replace(naps, objectives=(replace(naps.objectives[0], value=bury), naps.objectives[1]))
    said = io.StringIO()
    study = run_sweep(sweep, tmp_path, 2, progress=LineProgress(said))
    assert "trial 0: taken for dead, and given to another worker meanwhile" in said.getvalue()
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[1].params == study.trials[0].params
    assert set(study.trials[1].user_attrs["stages"].values()) == {"run"}  # found as its first attempt left it


@pytest.mark.slow
def test_a_worker_killed_on_another_disk_is_replaced_through_the_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("grpc")
    monkeypatch.setattr("compress.sweep.claims.SILENCE_S", 2.0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, command = f"grpc://127.0.0.1:{port}", [sys.executable, "-m", "compress.cli"]
    there, environment = tmp_path / "there", {**os.environ, "PYTHONPATH": str(ROOT)}
    there.mkdir()
    write_recipe(there, steps=30, nap_s=0.5)
    arguments = [*command, "sweep-server", "sqlite:///study.db", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(arguments, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None and "is served at" in server.stderr.readline()
            arguments = [*command, "sweep", "naps.py", "--trials", "1", "--storage", url]
            with subprocess.Popen(arguments, cwd=there, env=environment, stderr=subprocess.DEVNULL) as victim:
                wait_for(lambda: list(there.glob("runs/sweeps/naps/trial-*/logs/*/steps.csv")))
                victim.send_signal(signal.SIGKILL)
            here = sleeping_sweep("naps", steps=30)  # naps are no part of a key
            run_sweep(here, tmp_path / "here", 1, progress=LineProgress(io.StringIO()), storage=url)
            study = optuna.load_study(study_name="naps", storage=open_storage(url, tmp_path))
            first, second = study.trials
        finally:
            server.terminate()
    assert (first.state.name, second.state.name) == ("FAIL", "COMPLETE")
    assert second.params == first.params and first.user_attrs[REASON] == SILENT
