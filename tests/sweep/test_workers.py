"""Many workers on one study: what kills, Ctrl-C and crowds leave is exactly the study that was asked for."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import optuna
import psutil
import pytest

from compress import cli
from compress.artifact import verify
from compress.plan import artefacts
from compress.progress import LineProgress
from compress.recipe import Recipe
from compress.sweep.slurm import script
from compress.sweep.storage import open_storage
from compress.sweep.team import environment, last_line
from compress.sweep.worker import run_sweep
from tests.sleeper import sleeping_sweep, write_recipe
from tests.sweep.postgres import server

ROOT = Path(__file__).resolve().parent.parent.parent
KILLS = 10
PATIENCE_S = 900  # a machine that is busy with other things


def pocketdiff(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command, in a folder, heeding Ctrl-C even where the shell has set it to be ignored."""
    return subprocess.Popen(
        [sys.executable, "-m", "compress.cli", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def begun(logs: Path) -> int:
    """How many times a worker has said that it is at a trial."""
    return sum(path.read_text().count("\ntrial: 2 stages") for path in logs.glob("*.log"))


def ended(process: psutil.Process) -> bool:
    """Whether it has ended by itself or by a signal, be it noticed by its parent or not."""
    try:
        return process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True


def kill_at_random(process: subprocess.Popen[str], logs: Path, kills: int) -> int:
    """Kills workers, each once and some moment after another trial has begun; how many there were to kill."""
    draw, before, killed = random.Random(7), 0, set()
    deadline_s = time.monotonic() + PATIENCE_S
    while len(killed) < kills and process.poll() is None and time.monotonic() < deadline_s:
        if begun(logs) <= before:
            time.sleep(0.05)
            continue
        time.sleep(draw.uniform(0.0, 1.5))
        children = psutil.Process(process.pid).children()
        workers = [child for child in children if child.pid not in killed and not ended(child)]
        if workers:
            before = begun(logs)
            victim = draw.choice(workers)
            victim.send_signal(signal.SIGKILL)
            killed.add(victim.pid)
    return len(killed)


def check_whole(folder: Path, study: optuna.Study, trials: int) -> None:
    """As many trials as were asked for, each complete exactly once; every artefact sound, computed once, and belonging
    to a trial."""
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    others = [trial for trial in study.trials if trial.state.name != "COMPLETE"]
    assert len(done) == trials
    assert all(trial.user_attrs["reason"].startswith("the same as trial") for trial in others)
    folders = {folder / trial.user_attrs["folder"] for trial in done}
    assert set(folder.glob("trial-*")) == folders
    computed: Counter[str] = Counter()
    for run in folders:
        found = dict(artefacts(run))
        assert {path.name for path in found} == {"10-a", "20-b"} and {path.parent for path in found} == {run}
        computed.update(card.key for card in map(verify, found) if card.reused_from is None)
        assert not [path.name for path in run.glob(".tmp-*")] and not list(run.glob(".work/*"))
        for log in run.glob("logs/*/steps.csv"):
            steps = [line.partition(",")[0] for line in log.read_text().split()]
            assert len(steps) == len(set(steps)), "a step was done again instead of resumed"
    assert set(computed.values()) == {1}
    needed = {key for run in folders for _, key in artefacts(run)}
    assert needed == set(computed)


@contextmanager
def journal() -> Iterator[str | None]:
    yield None


@pytest.mark.slow
@pytest.mark.parametrize("storage", [journal, server])
def test_ten_kills_lose_and_double_nothing(tmp_path: Path, storage: object) -> None:
    trials = 24  # more than are done before the last kill
    write_recipe(tmp_path, steps=4, nap_s=0.15)
    with storage() as url:  # type: ignore[operator]
        where = [] if url is None else ["--storage", url]
        arguments = ["sweep", "naps.py", "--trials", str(trials), "--workers", "2", "--json", *where]
        process = pocketdiff(tmp_path, *arguments)
        folder = tmp_path / "runs" / "sweeps" / "naps"
        killed = kill_at_random(process, folder / "logs", KILLS)
        said, complained = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, complained
        assert killed == KILLS and complained.count("was killed; another takes its place") == KILLS
        study = optuna.load_study(study_name="naps", storage=open_storage(url, folder))
        check_whole(folder, study, trials)
        line = json.loads(said)
        assert line["trials"]["complete"] == trials and set(line["trials"]) <= {"complete", "pruned"}
        assert line["stages_run"] + line["stages_reused"] == 2 * trials
        assert sum(trial.user_attrs["worker"]["attempts"] - 1 for trial in study.trials) <= KILLS


@pytest.mark.slow
def test_ctrl_c_stops_every_worker_and_the_same_command_goes_on(tmp_path: Path) -> None:
    write_recipe(tmp_path, steps=40, nap_s=0.05)
    arguments = ["sweep", "naps.py", "--trials", "3", "--workers", "2"]
    process = pocketdiff(tmp_path, *arguments)
    folder = tmp_path / "runs" / "sweeps" / "naps"
    deadline_s = time.monotonic() + PATIENCE_S
    while begun(folder / "logs") < 2 and time.monotonic() < deadline_s:
        time.sleep(0.1)
    workers = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130 and said.rstrip().endswith("Stopped; the same command continues.")
    assert "Traceback" not in said and len(workers) == 2 and not any(worker.is_running() for worker in workers)
    process = pocketdiff(tmp_path, *arguments)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    study = optuna.load_study(study_name="naps", storage=open_storage(None, folder))
    check_whole(folder, study, 3)
    assert {trial.user_attrs["worker"]["attempts"] for trial in study.trials} == {1}


@pytest.mark.slow
def test_a_worker_that_is_asked_to_stop_is_replaced(tmp_path: Path) -> None:
    write_recipe(tmp_path, steps=10, nap_s=0.1)
    process = pocketdiff(tmp_path, "sweep", "naps.py", "--trials", "3", "--workers", "2", "--json")
    folder = tmp_path / "runs" / "sweeps" / "naps"
    deadline_s = time.monotonic() + PATIENCE_S
    while begun(folder / "logs") < 2 and time.monotonic() < deadline_s:
        time.sleep(0.05)
    for worker in psutil.Process(process.pid).children():
        worker.terminate()
    said, complained = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, complained
    assert complained.count("was stopped; another takes its place") == 2
    assert json.loads(said)["trials"]["complete"] == 3
    check_whole(folder, optuna.load_study(study_name="naps", storage=open_storage(None, folder)), 3)


@pytest.mark.slow
def test_a_worker_s_mistake_stops_the_team_with_its_message(tmp_path: Path) -> None:
    write_recipe(tmp_path, steps=0, fails=True)
    process = pocketdiff(tmp_path, "sweep", "naps.py", "--trials", "3", "--workers", "2")
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2 and "Traceback" not in said
    assert "failed: ArithmeticError: width" in said and "See what it says above that." in said


@pytest.mark.slow
def test_thirty_two_workers_through_the_proxy_lose_nothing(tmp_path: Path) -> None:
    pytest.importorskip("grpc")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = pocketdiff(tmp_path, "sweep-server", "sqlite:///study.db", "--host", "127.0.0.1", "--port", str(port))
    try:
        assert served.stderr is not None and "is served at grpc://127.0.0.1" in served.stderr.readline()
        sweep, url, trials = sleeping_sweep("crowd", steps=2, nap_s=0.02), f"grpc://127.0.0.1:{port}", 48
        run_sweep(sweep, tmp_path / "runs", 1, progress=LineProgress(io.StringIO()), storage=url)
        threads = [
            threading.Thread(
                target=run_sweep,
                args=(sweep, tmp_path / "runs", trials),
                kwargs={"seed": 1000 * number, "progress": LineProgress(io.StringIO()), "storage": url},
            )
            for number in range(32)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        folder = tmp_path / "runs" / "sweeps" / "crowd"
        check_whole(folder, optuna.load_study(study_name="crowd", storage=open_storage(url, folder)), trials)
    finally:
        served.terminate()
        served.communicate(timeout=60)


def test_a_full_disk_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path, dump="/dev/full")
    assert cli.main(["sweep", "naps.py", "--trials", "2"]) == 2
    assert "No space left on device. Free some space, then run again." in capsys.readouterr().err
    write_recipe(tmp_path)
    assert cli.main(["sweep", "naps.py", "--trials", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trials"] == {"complete": 2}
    folder = Path("runs/sweeps/naps")
    study = optuna.load_study(study_name="naps", storage=open_storage(None, folder))
    check_whole(folder, study, 2)
    assert {trial.user_attrs["worker"]["attempts"] for trial in study.trials} == {1}


@pytest.mark.slow
def test_what_fails_is_told_and_the_rest_goes_on_until_too_much_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = sleeping_sweep("odd", widths=4, grid=True)

    def sample(trial: optuna.Trial) -> Recipe:
        recipe = odd.sample(trial)
        bad = replace(recipe.stages[1], fails=trial.params["width"] == 2)  # type: ignore[call-arg]
        return replace(recipe, stages=(recipe.stages[0], bad))

    said = io.StringIO()
    monkeypatch.setattr("compress.sweep.worker.MAX_FAILURES", 100)
    study = run_sweep(replace(odd, sample=sample), tmp_path, progress=LineProgress(said))
    states = Counter((trial.params["width"], trial.state.name) for trial in study.trials)
    assert states == {(1, "COMPLETE"): 4, (2, "FAIL"): 8, (3, "COMPLETE"): 4, (4, "COMPLETE"): 4}
    failed = [trial for trial in study.trials if trial.state.name == "FAIL"]
    assert {trial.user_attrs["reason"] for trial in failed} == {"ArithmeticError: width 2 fails"}
    assert said.getvalue().count("failed (ArithmeticError: width 2 fails)") == 8
    monkeypatch.setattr("compress.sweep.worker.MAX_FAILURES", 3)
    hopeless = sleeping_sweep("hopeless", fails=True)
    with pytest.raises(ArithmeticError):
        run_sweep(hopeless, tmp_path, progress=LineProgress(said))


def test_workers_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    found = [environment(number, 3) for number in range(3)]
    assert [(env["OMP_NUM_THREADS"], env["CUDA_VISIBLE_DEVICES"]) for env in found] == [
        ("2", "4"),
        ("2", "5"),
        ("2", "4"),
    ]
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert environment(0, 3)["OMP_NUM_THREADS"] == "7" and "CUDA_VISIBLE_DEVICES" not in environment(0, 3)


def test_a_log_s_last_line_is_what_it_came_to(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("trial 0\nerror: runs: no. Mend it.\n\n")
    assert last_line(tmp_path / "log") == "error: runs: no. Mend it."


def test_a_slurm_script_runs_the_same_command(tmp_path: Path) -> None:
    text = script("my/naps", ["sweep", "naps.py", "--storage", "sqlite:///my study.db"], 8)
    (tmp_path / "job.sh").write_text(text)
    assert subprocess.run(["bash", "-n", str(tmp_path / "job.sh")], check=False).returncode == 0
    assert "#SBATCH --array=0-7\n" in text and "--job-name=pocketdiff-my-naps\n" in text
    assert text.endswith("srun pocketdiff sweep naps.py --storage 'sqlite:///my study.db'\n")
