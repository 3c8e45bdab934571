"""The command line: pinned flags, quick to start, exit codes that scripts can rely on."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compress import cli
from compress.artifact import verify

ROOT = Path(__file__).resolve().parent.parent
TOY = """
from tests.toy import toy_recipe

def recipe():
    return toy_recipe("a", "b", steps=40, step_s={step_s})
"""
FLAGS = {
    "run": ["--artefacts", "--device", "--dry-run", "--fresh", "--from", "--out", "--runs", "--until", "recipe"],
    "recipes": ["recipe"],
    "doctor": [],
    "eval": ["--device", "--json", "--n", "--runtime", "--seed", "--steps", "--suite", "checkpoint"],
    "generate": ["--device", "--image", "--output", "--runtime", "--seed", "-n", "-o", "checkpoint", "prompt"],
    "report": ["--out", "--publish", "run"],
    "bench surgery": ["--criterion", "--dtype", "--json", "--layer-rule", "--scale", "--shards", "--work"],
    "bench quantize": ["--emulate", "--json", "--px", "--scale", "--soc", "--work"],
    "plan": [
        *("--chip", "--json", "--latency-ms", "--latent", "--macs-g", "--parameters-m", "--size-mb", "--steps"),
        *("--tokens", "folder"),
    ],
    "sensitivity": ["--criterion", "--device", "--json", "--ratios", "--run", "--samples", "--seed", "checkpoint"],
    "nncf": ["--forms", "--images", "--json", "--out", "checkpoint"],
    "sweep": [
        *("--artefacts", "--device", "--disk-gb", "--json", "--ray", "--ray-set", "--runs", "--sampler", "--seed"),
        *("--slurm", "--storage", "--submitit", "--submitit-set", "--trials", "--workers", "sweep"),
    ],
    "deploy-front": [
        *("--artefacts", "--device", "--json", "--of-team", "--runs", "--storage", "--top", "--workers", "study"),
    ],
    "sweep-server": ["--host", "--port", "storage"],
    "gc": ["--keep-gb", "--runs", "--yes"],
}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe file, with an empty working directory around it."""
    path = tmp_path / "toy.py"
    path.write_text(TOY.format(step_s=0.0))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("compress.commands.run.write", lambda folder: None)  # reports have tests of their own
    return path


def test_the_flags_are_these_and_no_others() -> None:
    (commands,) = (a for a in cli.build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    parsers = dict(commands.choices)
    (subjects,) = (a for a in parsers.pop("bench")._actions if isinstance(a, argparse._SubParsersAction))
    parsers |= {f"bench {name}": parser for name, parser in subjects.choices.items()}
    found = {
        name: sorted(word for action in parser._actions if action.dest != "help" for word in _words(action))
        for name, parser in parsers.items()
    }
    assert found == FLAGS, "hyperparameters are fields of a recipe; a new flag needs a reason and a line here"


def _words(action: argparse.Action) -> list[str]:
    return list(action.option_strings) or [action.dest]


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from compress import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'diffusers', 'transformers', 'optuna', 'onnxruntime', 'numpy', 'rich'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    start_s = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout and "generate" in done.stdout
    assert time.monotonic() - start_s < 3  # 0.1 s on an idle machine


def test_run_makes_the_artefacts_and_prints_no_traceback(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "toy.py", "--a.width", "32", "--until", "a"]) == 0
    assert verify(Path("runs/toy/10-a")).recipe["width"] == 32
    assert not Path("runs/toy/20-b").exists()
    assert cli.main(["run", "toy.py", "--out", "elsewhere"]) == 0
    assert verify(Path("elsewhere/20-b"))
    assert "20-b: finished in" in capsys.readouterr().err


def test_dry_run_tells_the_plan_and_writes_nothing(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "toy.py", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "10-a" in said and "run" in said and "2 unknown" in said
    assert not Path("runs").exists()
    cli.main(["run", "toy.py"])
    assert cli.main(["run", "toy.py", "--dry-run", "--b.steps", "80"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()}
    assert "done already" in rows["10-a"] and " x 2" in rows["20-b"]  # twice the steps of the run before


def test_recipes_lists_and_shows(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes"]) == 0
    assert "teacher_scenes" in capsys.readouterr().out
    assert cli.main(["recipes", "teacher_scenes"]) == 0
    said = capsys.readouterr().out
    assert "Hardware" in said and "--teacher.steps" in said


def test_overrides_belong_to_run_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["recipes", "--a.steps", "3"])
    assert stopped.value.code == 2
    assert "unrecognized arguments: --a.steps" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(toy: Path, tmp_path: Path) -> None:
    toy.write_text(TOY.format(step_s=0.05))
    command = [sys.executable, "-m", "compress.cli", "run", "toy.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def heed_ctrl_c() -> None:  # a shell starts background jobs deaf to it, and children inherit that
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c
    )
    for _ in range(300):
        if list(tmp_path.glob("runs/toy/.work/*/state.safetensors")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert said.rstrip().endswith("Stopped; the same command continues.") and "Traceback" not in said
    assert not list(tmp_path.glob("runs/toy/.tmp-*"))
    assert cli.main(["run", "toy.py", "--a.step_s", "0", "--b.step_s", "0"]) == 0
    log = (tmp_path / "runs/toy/logs/10-a/walk.csv").read_text().splitlines()
    assert 40 <= len(log) <= 41
    assert json.loads((tmp_path / "runs/toy/recipe.json").read_text())["run"]["command"][0] == "pocketdiff"
