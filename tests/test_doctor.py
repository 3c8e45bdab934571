"""The doctor names what is missing, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress import cli, doctor
from compress.doctor import Finding, State


def by_name(setup: Path) -> dict[str, Finding]:
    return {finding.check: finding for finding in doctor.packages(setup)}


def test_packages_are_held_against_setup_cfg(tmp_path: Path) -> None:
    setup = tmp_path / "setup.cfg"
    setup.write_text(
        "[options]\ninstall_requires =\n    torch >=2\n    # a comment\n    numpy >=999\n    no-such-package >=1\n"
        '    also-none >=1; sys_platform == "amiga"\n'
    )
    found = by_name(setup)
    assert found["torch"].state is State.GOOD and found["torch"].remedy == ""
    assert found["numpy"].state is State.BAD and ">=999 is needed" in found["numpy"].remedy
    assert (found["no-such-package"].value, found["no-such-package"].remedy) == ("not installed", "make venv")
    assert found["also-none"].state is State.NOTE


def test_the_real_requirements_are_read() -> None:
    assert {"torch", "diffusers", "lightning", "optuna", "onnxruntime", "nncf"} <= set(by_name(doctor.SETUP))


def test_a_folder_that_cannot_be_written_is_bad(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    states = {finding.check: finding.state for finding in doctor.folders(tmp_path)}
    assert states["runs"] is State.BAD and states["temporary files"] is State.GOOD


def test_the_exit_code_says_whether_a_run_would_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [Finding(State.GOOD, "a", "fine"), Finding(State.NOTE, "b", "slow")]
    monkeypatch.setattr("compress.commands.doctor.examine", lambda: findings)
    assert cli.main(["doctor"]) == 0
    findings.append(Finding(State.BAD, "c", "broken", "mend it"))
    assert cli.main(["doctor"]) == 2
    assert "mend it" in capsys.readouterr().out


@pytest.mark.slow
def test_the_emulator_doubles_a_number() -> None:
    pytest.importorskip("onnxruntime_qnn")
    assert doctor.one_op_on_htp() > 50  # dB; uint16 steps of 1e-4 on numbers up to 2 give about 88
