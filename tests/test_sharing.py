"""Two runs that need the same artefact: one computes it, the other waits and reuses it."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from compress.artifact import load_card
from compress.locks import locked, this_process
from compress.pipeline import run
from compress.plan import Action, Options, Plan
from compress.progress import LineProgress
from compress.recipe import Recipe
from compress.sharing import LOCKS, stage_lock
from tests.sleeper import SleepConfig

KEY = "k"


def recipe(*names: str, live: tuple[str, ...] = (), nap_s: float = 0.0, fails: bool = False) -> Recipe:
    stages = tuple(SleepConfig(name=name, nap_s=nap_s, fails=fails) for name in names)
    return Recipe(name="naps", description="", teacher=None, stages=stages, live=live)


def go(tmp_path: Path, name: str, made: Recipe, said: io.StringIO | None = None) -> Plan:
    options = Options(out=tmp_path / name, runs=tmp_path, shipped=())
    return run(made, options, LineProgress(said or io.StringIO()))


def together(tmp_path: Path, *recipes: Recipe) -> tuple[dict[str, list[Action]], str]:
    """Runs them at the same time; what each did, and what was said."""
    said, done = io.StringIO(), {}

    def one(name: str, made: Recipe) -> None:
        done[name] = [step.action for step in go(tmp_path, name, made, said).steps]

    threads = [threading.Thread(target=one, args=(f"run{i}", made)) for i, made in enumerate(recipes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return done, said.getvalue()


def wait_until(told: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not told():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def hold(runs: Path, said: list[str]) -> None:
    """Takes the lock for a moment."""
    with stage_lock(runs, KEY, said.append):
        pass


@pytest.mark.slow
def test_who_comes_second_waits_and_reuses(tmp_path: Path) -> None:
    done, said = together(tmp_path, recipe("a", "b", nap_s=0.5), recipe("a", "c", nap_s=0.5))
    cards = [load_card(tmp_path / name / "10-a") for name in ("run0", "run1")]
    assert sorted(card.reused_from is None for card in cards) == [False, True]
    assert sorted((actions[0] for actions in done.values()), key=str) == sorted([Action.REUSE, Action.RUN], key=str)
    assert all(actions[1] is Action.RUN for actions in done.values())
    assert said.count("is computing the same artefact; waiting for it") == 1
    inodes = {(tmp_path / name / "10-a" / "zeros.bin").stat().st_ino for name in done}
    assert len(inodes) == 1


def test_what_was_made_since_the_plan_is_reused(tmp_path: Path) -> None:
    made = go(tmp_path, "first", recipe("a")).steps[0]
    said: list[str] = []
    with stage_lock(tmp_path, made.key, said.append) as lock:
        assert lock.made == tmp_path / "first" / "10-a" and said == []
    (tmp_path / "first" / "10-a" / "zeros.bin").write_bytes(b"damaged")
    with stage_lock(tmp_path, made.key, said.append) as lock:
        assert lock.made is None


def test_what_was_made_is_known_still_when_who_takes_it_over_is_killed(tmp_path: Path) -> None:
    made = go(tmp_path, "first", recipe("a")).steps[0]
    for _ in "killed", "next":
        with suppress(KeyboardInterrupt), stage_lock(tmp_path, made.key, lambda who: None) as lock:
            assert lock.made == tmp_path / "first" / "10-a"
            raise KeyboardInterrupt


@pytest.mark.parametrize("note", ["process 1 on gone", ""])
def test_what_was_made_without_a_note_is_reused(tmp_path: Path, note: str) -> None:
    key, runs = go(tmp_path / "elsewhere", "first", recipe("a")).steps[0].key, tmp_path / "runs"
    said, plans = io.StringIO(), []
    waiting = threading.Thread(target=lambda: plans.append(go(runs, "second", recipe("a"), said)))
    with stage_lock(runs, key, lambda who: None):
        waiting.start()  # it plans to compute what nobody has here
        wait_until(lambda: "waiting for it" in said.getvalue())
        go(runs, "killed", recipe("a", live=("a",)))  # in place, and no note of it, as a kill leaves it
        (runs / LOCKS / key).write_text(note)
    waiting.join(30)
    assert plans[0].steps[0].action is Action.REUSE
    assert load_card(runs / "second" / "10-a").reused_from == "runs/killed/10-a"
    with stage_lock(runs, key, lambda who: None) as lock:
        assert lock.made == runs / "second" / "10-a"


def test_who_waits_is_told_a_process_or_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    for note, told in ((this_process(), this_process()), ('{"made": "x"}', "another process"), ("", "another process")):
        with locked(tmp_path / LOCKS / KEY) as held:
            held.note(note)
            waiting = threading.Thread(target=hold, args=(tmp_path, said))
            waiting.start()
            wait_until(lambda: bool(said))
        waiting.join(20)
        assert said.pop() == told and not said


def test_a_live_stage_waits_for_nobody(tmp_path: Path) -> None:
    go(tmp_path, "first", recipe("a"))
    with stage_lock(tmp_path, go(tmp_path, "first", recipe("a")).steps[0].key, lambda who: None):
        began_s = time.monotonic()
        assert go(tmp_path, "second", recipe("a", live=("a",))).steps[0].action is Action.RUN
        assert time.monotonic() - began_s < 30


def test_a_stage_that_fails_frees_its_lock(tmp_path: Path) -> None:
    try:
        go(tmp_path, "first", recipe("a", fails=True))
    except ArithmeticError:
        pass
    assert go(tmp_path, "second", recipe("a")).steps[0].action is Action.RUN
    assert (tmp_path / LOCKS).is_dir()


def test_a_run_that_waits_for_its_folder_finds_everything_done(tmp_path: Path) -> None:
    said = io.StringIO()
    options = Options(out=tmp_path / "same", runs=tmp_path, shipped=(), wait=True)
    plans: list[Plan] = []
    slow = recipe("a", nap_s=0.5)
    threads = [
        threading.Thread(target=lambda: plans.append(run(slow, replace(options), LineProgress(said)))) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {plan.steps[0].action for plan in plans} == {Action.RUN, Action.DONE}  # whichever of them returned first
    assert "is working here; waiting for it" in said.getvalue()
