"""Who works on what: never more trials than are wanted, and none by two."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from compress.locks import this_process
from compress.study_record import REASON
from compress.sweep import Sweep
from compress.sweep.claims import MAX_ATTEMPTS, SURPLUS, Claims
from compress.sweep.study import open_study
from tests.sleeper import sleeping_sweep


@pytest.fixture
def made(tmp_path: Path) -> tuple[Sweep, optuna.Study, Path]:
    sweep = sleeping_sweep("naps")
    return sweep, open_study(sweep, tmp_path), tmp_path


def worker(made: tuple[Sweep, optuna.Study, Path], wanted: int) -> Claims:
    sweep, _, folder = made
    return Claims(open_study(sweep, folder), sweep, folder, wanted, seed=0)


def test_two_workers_do_not_both_begin_the_last_trial(made: tuple[Sweep, optuna.Study, Path]) -> None:
    with worker(made, 1).next() as first, worker(made, 1).next() as second:
        assert first is not None and second is None
        assert worker(made, 1).others_at_work() == [this_process()] and not worker(made, 1).done()
        first.trial.study.tell(first.trial, (1.0, 1.0))
    assert worker(made, 1).others_at_work() == [] and worker(made, 1).done() and not worker(made, 2).done()
    assert len(made[1].trials) == 1


def test_the_second_of_two_that_asked_at_once_gives_up(
    made: tuple[Sweep, optuna.Study, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, study = worker(made, 1), made[1]
    ask = ours.study.ask

    def ask_after_another() -> optuna.Trial:  # a machine that shares the storage, but not the lock
        study.ask()
        return ask()

    monkeypatch.setattr(ours.study, "ask", ask_after_another)
    with ours.next() as claim:
        assert claim is None
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.FAIL]
    assert study.trials[1].user_attrs[REASON] == SURPLUS


def test_a_living_trial_is_left_alone_and_a_dead_one_taken_over_once(made: tuple[Sweep, optuna.Study, Path]) -> None:
    with ExitStack() as living:
        first = living.enter_context(worker(made, 3).next())
        second = living.enter_context(worker(made, 3).next())
        assert first and second and (first.trial.number, second.trial.number) == (0, 1)
    with worker(made, 3).next() as again, worker(made, 3).next() as other, worker(made, 3).next() as new:
        assert again and other and new
        assert [(c.trial.number, c.taken_over) for c in (again, other, new)] == [(0, True), (1, True), (2, False)]


def test_a_trial_that_kills_its_workers_is_given_up(made: tuple[Sweep, optuna.Study, Path]) -> None:
    for attempt in range(MAX_ATTEMPTS):
        with worker(made, 1).next() as claim:
            assert claim is not None and (claim.trial.number, claim.taken_over) == (0, attempt > 0)
    with worker(made, 1).next() as claim:
        assert claim is not None and claim.trial.number == 1
    assert made[1].trials[0].user_attrs[REASON] == f"its workers died {MAX_ATTEMPTS} times"


def test_an_interruption_is_no_attempt(made: tuple[Sweep, optuna.Study, Path]) -> None:
    for _ in range(MAX_ATTEMPTS + 1):
        ours = worker(made, 1)
        with ours.next() as claim:
            assert claim is not None and claim.trial.number == 0
            ours.put_back(claim)


def test_a_trial_from_elsewhere_is_not_judged_by_a_lock_that_cannot_be_here(
    made: tuple[Sweep, optuna.Study, Path],
) -> None:
    trial = made[1].ask()
    trial.set_user_attr("worker", {"place": "another disk", "process": "process 7 on moon", "attempts": 1})
    with worker(made, 1).next() as claim:
        assert claim is None
    assert worker(made, 1).others_at_work() == ["process 7 on moon"]
