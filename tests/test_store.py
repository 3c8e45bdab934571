"""Machines without a common disk share artefacts through a store; what is damaged there is made again."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from compress.artifact import CARD, TEMPORARY, load_card, verify
from compress.errors import UserError
from compress.pipeline import run
from compress.plan import Action, Options, Plan
from compress.progress import LineProgress
from compress.recipe import Recipe
from compress.store import FETCHED, LOCKS, Store
from compress.sweep.outcome import outcome
from compress.sweep.worker import run_sweep
from tests.sleeper import SleepConfig, sleeping_sweep

RECIPE = Recipe(
    name="naps", description="", teacher=None, stages=tuple(SleepConfig(name=name, width=3) for name in "ab")
)


def on(machine: Path, url: str | None, recipe: Recipe = RECIPE) -> Plan:
    """The recipe run on one machine: a folder of runs of its own."""
    return run(recipe, Options(machine / "naps", machine, shipped=(), store=url), LineProgress(io.StringIO()))


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_what_one_machine_makes_another_reuses(tmp_path: Path, scheme: str) -> None:
    url = f"{scheme}://{tmp_path}/store"
    first = on(tmp_path / "one", url)
    assert [step.action for step in first.steps] == [Action.RUN, Action.RUN]
    second = on(tmp_path / "two", url)
    assert [step.action for step in second.steps] == [Action.REUSE, Action.REUSE]
    for made, found in zip(first.steps, second.steps, strict=True):
        assert load_card(made.folder).content_hash == load_card(found.folder).content_hash
        assert load_card(found.folder).reused_from is not None
    assert [step.action for step in on(tmp_path / "two", url).steps] == [Action.DONE, Action.DONE]


def test_a_run_from_before_the_store_is_added_to_it(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    on(tmp_path / "one", None)
    on(tmp_path / "one", url)
    assert [step.action for step in on(tmp_path / "two", url).steps] == [Action.REUSE, Action.REUSE]


def test_what_is_damaged_in_the_store_is_made_again(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    keys = [step.key for step in on(tmp_path / "one", url).steps]
    (tmp_path / "store" / keys[1] / "zeros.bin").write_bytes(b"short")
    assert [step.action for step in on(tmp_path / "two", url).steps] == [Action.REUSE, Action.RUN]
    store = Store(url, tmp_path / "three")
    assert store.fetch(keys[1]) is not None, "who made it again put it right"
    (tmp_path / "store" / keys[0] / "zeros.bin").unlink()
    assert store.fetch(keys[0]) is None
    assert sorted(path.name for path in (tmp_path / "three" / FETCHED).iterdir()) == [LOCKS, keys[1]]


def test_workers_that_need_the_same_artefact_at_once_fetch_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, two = f"file://{tmp_path}/store", tmp_path / "two"
    big = Recipe(name="naps", description="", teacher=None, stages=(SleepConfig(name="a", size_kb=4000),))
    (key,) = [step.key for step in on(tmp_path / "one", url, big).steps]
    fork, copy = multiprocessing.get_context("fork"), Store._copy
    start, downloads = fork.Barrier(4), fork.Value("i", 0)

    def slow_copy(store: Store, key: str, folder: Path) -> None:
        with downloads.get_lock():
            downloads.value += 1
        copy(store, key, folder)
        time.sleep(0.2)

    def take_over(worker: int) -> None:
        start.wait(30)
        found = Store(url, two).fetch(key)
        assert found is not None
        for _ in range(20):  # nobody puts another copy in the place of the one that is being taken over
            verify(found)
        os.link(found / "zeros.bin", two / f"{worker}.bin")

    monkeypatch.setattr(Store, "_copy", slow_copy)
    processes = [fork.Process(target=take_over, args=(worker,)) for worker in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4 and downloads.value == 1
    assert len({(two / f"{worker}.bin").stat().st_ino for worker in range(4)}) == 1


def test_what_a_kill_left_of_a_download_goes_with_the_next(tmp_path: Path) -> None:
    url, two = f"file://{tmp_path}/store", tmp_path / "two"
    (key, _) = [step.key for step in on(tmp_path / "one", url).steps]
    torn = two / FETCHED / f"{TEMPORARY}{key}"
    torn.mkdir(parents=True)
    (torn / CARD).write_text("half of")
    found = Store(url, two).fetch(key)
    assert found is not None and verify(found).key == key and not torn.exists()


def test_an_artefact_without_a_card_is_not_there_yet(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    keys = [step.key for step in on(tmp_path / "one", url).steps]
    (tmp_path / "store" / keys[0] / CARD).unlink()
    store = Store(url, tmp_path / "two")
    assert store.fetch(keys[0]) is None and store.fetch(keys[1]) is not None
    store.put(tmp_path / "one" / "naps" / "10-a")
    assert store.fetch(keys[0]) is not None


def test_a_card_cannot_write_elsewhere(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    (key, _) = [step.key for step in on(tmp_path / "one", url).steps]
    card = tmp_path / "store" / key / CARD
    told = json.loads(card.read_text())
    told["files"]["../../escaped"] = {"bytes": 6, "sha256": "0" * 64}
    card.write_text(json.dumps(told))
    (tmp_path / "escaped").write_text("planted")
    assert Store(url, tmp_path / "two").fetch(key) is None
    assert not list((tmp_path / "two").rglob("escaped"))


def test_a_store_that_does_not_answer_loses_nothing(tmp_path: Path) -> None:
    for url in ("moon://artefacts", f"file://{tmp_path}/file/store"):
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(UserError, match=r"store of artefacts does not answer .* nothing is lost"):
            on(tmp_path / "one", url)
    again = on(tmp_path / "one", f"file://{tmp_path}/store")
    assert [step.action for step in again.steps] == [Action.DONE, Action.RUN]


def test_a_trial_waits_for_its_store_to_come_back(tmp_path: Path) -> None:
    made, file = sleeping_sweep("naps"), tmp_path / "file"
    file.write_text("no folder")
    with pytest.raises(UserError, match="store of artefacts does not answer"):
        run_sweep(made, tmp_path, 1, progress=LineProgress(io.StringIO()), store=f"file://{file}/store")
    file.unlink()
    study = run_sweep(made, tmp_path, 1, progress=LineProgress(io.StringIO()), store=f"file://{file}/store")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"]


def test_two_sweeps_on_two_machines_compute_each_stage_once(tmp_path: Path) -> None:
    made, url = sleeping_sweep("naps", widths=2, grid=True), f"file://{tmp_path}/store"
    for machine in ("one", "two"):
        study = run_sweep(made, tmp_path / machine, progress=LineProgress(io.StringIO()), store=url)
    line = outcome(study, made, 0.0)
    assert line["trials"] == {"complete": 8} and (line["stages_run"], line["stages_reused"]) == (0, 16)
