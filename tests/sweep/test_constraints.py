"""Limits are checked before any work, told to the sampler, and given up on when nothing keeps them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from compress.errors import UserError
from compress.progress import LineProgress
from compress.study_record import FOLDER
from compress.sweep import Constraint, Sweep, folder_of
from compress.sweep.sampling import SAMPLERS
from compress.sweep.trial import Infeasible, check_twins
from compress.sweep.worker import MAX_INFEASIBLE, run_sweep
from tests.sleeper import SleepConfig, sleeping_sweep


def limited(at_most: float) -> Sweep:
    """At most this width."""

    def width(recipe: object) -> float:
        stage = recipe.stages[1]  # type: ignore[attr-defined]
        assert isinstance(stage, SleepConfig)
        return float(stage.width)

    return replace(sleeping_sweep("limited"), constraints=(Constraint(label="width", at_most=at_most, value=width),))


def test_a_trial_above_a_limit_ends_without_work_and_says_why(tmp_path: Path) -> None:
    said = io.StringIO()
    study = run_sweep(limited(16), tmp_path, 4, progress=LineProgress(said))
    ended = {name: [t for t in study.trials if t.state.name == name] for name in ("COMPLETE", "PRUNED")}
    assert len(ended["COMPLETE"]) == 4 and ended["PRUNED"]
    assert all(trial.params["width"] <= 16 for trial in ended["COMPLETE"])
    for trial in ended["PRUNED"]:
        if trial.user_attrs["reason"].startswith("the same as"):
            continue
        width = trial.params["width"]
        assert trial.user_attrs["reason"] == f"width is {width}, at most 16"
        assert trial.constraints == {"width": (width - 16) / 16} and "folder" not in trial.user_attrs
    assert f"trial {ended['PRUNED'][0].number}: not carried out, width is" in said.getvalue()
    assert len(list(folder_of(limited(16), tmp_path).glob("trial-*"))) == len(
        {t.user_attrs["folder"] for t in ended["COMPLETE"]}
    )


def test_impossible_limits_are_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.sweep.worker.MAX_INFEASIBLE", 5)
    with pytest.raises(
        UserError, match=r"5 trials in a row broke a constraint or repeated another; .*at most 0\. Loosen"
    ) as told:
        run_sweep(limited(0), tmp_path, 2, progress=LineProgress(io.StringIO()))
    assert len(told.value.problems) == 1 and MAX_INFEASIBLE >= 100
    assert not list(folder_of(limited(0), tmp_path).glob("trial-*"))


@pytest.mark.parametrize("kind", SAMPLERS)
def test_no_point_is_carried_out_twice(tmp_path: Path, kind: str) -> None:
    few = replace(sleeping_sweep("naps", widths=2), sampler=kind)  # 8 points, which any sampler soon meets again
    study = run_sweep(few, tmp_path, 8, progress=LineProgress(io.StringIO()))
    done = [tuple(trial.params.values()) for trial in study.trials if trial.state.name == "COMPLETE"]
    assert len(done) == len(set(done)) == 8
    twins = [trial for trial in study.trials if trial.state.name == "PRUNED"]
    assert twins and len(study.trials) == 8 + len(twins)
    for trial in twins:
        assert trial.user_attrs["reason"].startswith("the same as trial ") and "folder" not in trial.user_attrs
        assert study.trials[int(trial.user_attrs["reason"].split()[-1])].params == trial.params


def test_a_space_that_is_used_up_is_one_message_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compress.sweep.worker.MAX_INFEASIBLE", 30)
    few = sleeping_sweep("naps", widths=1)
    with pytest.raises(UserError, match=r"30 trials in a row .* the same as trial \d\. .*make the space larger"):
        run_sweep(few, tmp_path, 9, progress=LineProgress(io.StringIO()))
    assert len(list(folder_of(few, tmp_path).glob("trial-*/trial.json"))) == 4


def test_of_two_that_draw_the_same_at_once_one_gives_way() -> None:
    made, study = sleeping_sweep("naps"), optuna.create_study(directions=["minimize", "minimize"])
    for _ in range(3):
        study.enqueue_trial({"seed": 0, "width": 2})
    slow, quick, late = (study.ask() for _ in range(3))
    made.sample(quick)
    check_twins(quick, made)
    quick.set_user_attr(FOLDER, "trial-1")
    for other in (slow, late):  # the first had a lower number, but had not drawn yet
        made.sample(other)
        with pytest.raises(Infeasible, match="the same as trial"):
            check_twins(other, made)
    check_twins(quick, made)  # it may go on, whoever draws its point now
