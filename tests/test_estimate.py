"""A plan's cost is scaled from what such stages cost before, and says where it does not know."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from compress import estimate, provenance
from compress.artifact import Card, save_card
from compress.estimate import Estimate, estimate_plan, estimate_step, read_history, work_of
from compress.pipeline import run
from compress.plan import Action, Step, make_plan
from compress.progress import LineProgress
from tests.toy import ToyConfig, options, toy_recipe


@pytest.fixture(autouse=True)
def nothing_published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(estimate, "PUBLISHED", tmp_path / "published")


def card(steps: int, wall_s: float, name: str = "a", **machine: object) -> Card:
    """A card of a toy stage made on this machine, or one that differs from it in `machine`."""
    here = {**provenance.machine(), **machine}
    recipe = {"steps": steps, "name": name}
    return Card(name=f"10-{name}", stage="toy", key="k", recipe=recipe, wall_s=wall_s, peak_rss_gb=2.0, machine=here)


def step(steps: int = 100) -> Step:
    return Step(ToyConfig(name="a", steps=steps), Path("10-a"), "key", Action.RUN)


def test_time_scales_with_samples() -> None:
    assert work_of({"steps": 10, "batch_size": 4}) == 40 and work_of({}) == 1
    assert work_of({"steps": ["depth", "width"], "batch_size": 4}) == 1  # of prune: operators, no updates
    found = estimate_step(step(100), [card(steps=50, wall_s=30.0)], "cpu")
    assert (found.wall_s, found.peak_rss_gb) == (60.0, 2.0)
    assert " x 2" in found.basis and "made on" not in found.basis


def test_the_same_machine_is_preferred_and_another_is_named() -> None:
    other = card(steps=100, wall_s=1.0, processor="Abacus 2")
    assert estimate_step(step(), [other, card(steps=10, wall_s=5.0)], "cpu").wall_s == 50.0
    assert estimate_step(step(), [other], "cpu").basis.endswith("made on Abacus 2")


def test_the_same_stage_is_preferred_to_another_of_its_kind() -> None:
    history = [card(steps=100, wall_s=9.0, name="b"), card(steps=10, wall_s=5.0)]
    assert estimate_step(step(), history, "cpu").wall_s == 50.0


def test_nothing_is_guessed() -> None:
    found = estimate_step(step(), [], "cpu")
    assert found.wall_s is None and found.basis == "nothing like it was run here yet"


def test_stages_that_are_not_run_cost_nothing(tmp_path: Path) -> None:
    run(toy_recipe("a", "b"), options(tmp_path), LineProgress(io.StringIO()))
    estimates = estimate_plan(make_plan(toy_recipe("a", "b"), options(tmp_path)), options(tmp_path))
    assert [one.wall_s for one in estimates] == [0.0, 0.0]
    assert estimate_step(Step(step().stage, Path("x"), "k", Action.SKIP), [], "cpu") == Estimate(wall_s=0.0)


def test_history_counts_what_was_computed_not_what_was_copied(tmp_path: Path) -> None:
    run(toy_recipe("a"), options(tmp_path), LineProgress(io.StringIO()))
    run(toy_recipe("a"), options(tmp_path, run="copy"), LineProgress(io.StringIO()))
    published = tmp_path / "published" / "x"
    published.mkdir(parents=True)
    save_card(published, card(steps=7, wall_s=1.0))
    (tmp_path / "published" / "card.json").mkdir()  # not a card at all
    assert [one.recipe["steps"] for one in read_history([tmp_path / "runs"])] == [3]
    assert [one.recipe["steps"] for one in read_history([published.parent / "x"])] == [7]
