"""`pocketdiff sensitivity`: what it prints, where it keeps it, that the report reads it, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compress import cli
from reports.sensitivity import read_sensitivities
from tests.tiny import tiny_system


def test_every_mistake_is_told_before_the_checkpoint_is_opened(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--ratios", "0.5,half,0", "--criterion", "love", "--samples", "4", "--run", "nowhere"]
    assert cli.main(["sensitivity", "nothing", *wrong]) == cli.USER_ERROR
    told = capsys.readouterr().err
    assert "error: 5 problems" in told
    for part in ("'half'", "'0'", "'love'", "--samples is 4", "--run nowhere"):
        assert part in told


@pytest.mark.slow
def test_a_stage_s_groups_are_measured_for_its_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    tiny_system().save(run / "10-prune")
    (run / "recipe.json").write_text("{}")
    options = ["--criterion", "magnitude", "--ratios", "0.5", "--samples", "8", "--device", "cpu", "--json"]
    assert cli.main(["sensitivity", str(run / "10-prune"), *options]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((run / "sensitivity" / "10-prune.json").read_text())
    stage: Any = SimpleNamespace(label="prune", key=None)  # this checkpoint has no card, and so no key
    (found,) = read_sensitivities(run, [stage])
    names = {group.name for group in found.groups}
    assert "conv_in" in names and any(name.endswith(".ff") for name in names) and found.ratios_units == (0.5,)
    assert len(names) == len(printed["rows"]) and found.power == printed["velocity_mean_square"] > 0
    assert max(error.velocity_mse for group in found.groups for error in group.errors.values()) > 0
