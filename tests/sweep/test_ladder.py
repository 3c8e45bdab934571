"""A ladder's trials stop at each rung; the best climb on from their last stage, and everybody else keeps its place."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from compress.artifact import load_card
from compress.errors import UserError
from compress.progress import LineProgress
from compress.recipe import Recipe
from compress.study_record import CLIMB, REASON, STUDY
from compress.sweep import Ladder, Objective, Sweep, folder_of, load_sweep
from compress.sweep.claims import Claims
from compress.sweep.ladder import Climb, climb_of, climbers, goal, hopeless
from compress.sweep.space import probe
from compress.sweep.study import open_study
from compress.sweep.worker import run_sweep
from reports.study.html import write_study
from reports.study.ladder import agreement_rows, agreements, rung_rows, tau
from reports.study.read import read_study
from tests.sleeper import SleepConfig

WIDTH = "width"


def sample(trial: Any) -> Recipe:
    """Three stages, each with its width as a metric; the wider, the better on every rung."""
    width = trial.suggest_int(WIDTH, 1, 1000)  # so many that none is drawn twice
    stages = tuple(SleepConfig(name=name, width=width, steps=2) for name in "abc")
    return Recipe(name="climb", description="", teacher=None, stages=stages)


def rung(stage: str, metric: str = WIDTH) -> tuple[Objective, ...]:
    return (Objective(stage=stage, metric=metric, label=f"{metric} of {stage}", maximize=True),)


def sweep(unselected: int = 0, factor: int = 3, name: str = "ladder") -> Sweep:
    ladder = Ladder(rungs=(rung("a"), rung("b")), factor=factor, unselected=unselected)
    return Sweep(name=name, description="A climb.", sample=sample, objectives=rung("c"), ladder=ladder)


def go(tmp_path: Path, made: Sweep, trials: int, seed: int = 0) -> optuna.Study:
    return run_sweep(made, tmp_path, trials, seed, progress=LineProgress(io.StringIO()))


def heights(study: optuna.Study) -> dict[int, list[int]]:
    """Rung -> widths of the trials that got there and no higher; 2 is the top."""
    found: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for trial in study.trials:
        assert trial.state.name in ("COMPLETE", "PRUNED")
        top = trial.state.name == "COMPLETE"
        found[2 if top else len(trial.user_attrs[CLIMB]["values"]) - 1].append(trial.params[WIDTH])
    return found


def test_the_best_third_climbs_and_the_best_of_all_is_at_the_top(tmp_path: Path) -> None:
    study = go(tmp_path, sweep(), 9)
    assert len(study.trials) == 9
    found = heights(study)
    widths = sorted(width for rows in found.values() for width in rows)
    assert len(found[1]) + len(found[2]) >= 3 and len(found[2]) >= 1
    assert max(found[2]) == widths[-1]  # the best climbs whenever it comes
    assert set(widths[-3:]) <= {*found[1], *found[2]}
    folder, rungs = folder_of(sweep(), tmp_path), {}
    for trial in study.trials:
        height = 3 if trial.state.name == "COMPLETE" else len(trial.user_attrs[CLIMB]["values"])
        place = trial.user_attrs["folder"]  # the same for equal parameters
        rungs[place] = max(height, rungs.get(place, 0))
        if height < 3:
            assert trial.user_attrs[REASON].startswith("not among the best 1/3 by width of")
    assert {place: len(list((folder / place).glob("?0-*"))) for place in rungs} == rungs


def test_a_trial_climbs_from_its_last_stage(tmp_path: Path) -> None:
    study = go(tmp_path, sweep(), 6)
    folder = folder_of(sweep(), tmp_path)
    (top, *_) = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    out = folder / top.user_attrs["folder"]
    for stage in ("10-a", "20-b", "30-c"):
        assert load_card(out / stage).reused_from is None
        steps = (out / "logs" / stage / "steps.csv").read_text().split()
        assert len(steps) == 2, "a stage was computed again"
    made = [load_card(out / stage).created_utc for stage in ("10-a", "20-b", "30-c")]
    assert made == sorted(made)
    assert top.user_attrs["stages"] == {"10-a": "run", "20-b": "run", "30-c": "run"}
    assert len(top.user_attrs[CLIMB]["wall_s"]) == 3


def test_the_first_climb_whatever_they_score(tmp_path: Path) -> None:
    study = go(tmp_path, sweep(unselected=4), 6)
    assert [trial.state.name for trial in study.trials[:4]] == ["COMPLETE"] * 4


def test_another_climbs_where_the_best_of_a_rung_failed_higher_up(tmp_path: Path) -> None:
    widest: list[int] = []

    def cursed(trial: Any) -> Recipe:  # the first that gets to the top fails there
        recipe = sample(trial)
        *lower, top = recipe.stages
        if climb_of(trial.user_attrs).target == 2 and not widest:
            widest.append(trial.params[WIDTH])
        return replace(recipe, stages=(*lower, replace(top, fails=widest == [trial.params[WIDTH]])))  # type: ignore[call-arg]

    for seed in range(3):
        widest.clear()
        study = go(tmp_path / str(seed), replace(sweep(), sample=cursed), 3, seed)
        states = [trial.state.name for trial in study.trials]
        assert states.count("FAIL") == 1 and states.count("COMPLETE") == 1


@pytest.mark.slow
def test_workers_that_climb_together_carry_each_trial_out_once(tmp_path: Path) -> None:
    threads = [threading.Thread(target=go, args=(tmp_path, sweep(), 8, 100 * n)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    study = open_study(sweep(), folder_of(sweep(), tmp_path))
    assert len(study.trials) == 8 and max(heights(study)[2]) == max(trial.params[WIDTH] for trial in study.trials)
    folder = folder_of(sweep(), tmp_path)
    assert {path.name for path in folder.glob("trial-*")} == {trial.user_attrs["folder"] for trial in study.trials}
    logs = list(folder.glob("trial-*/logs/*/steps.csv"))
    assert logs and all(len(log.read_text().split()) == 2 for log in logs), "a stage was computed twice"


def test_a_climb_that_died_is_taken_over_and_a_resting_trial_is_not(tmp_path: Path) -> None:
    made, folder = sweep(), folder_of(sweep(), tmp_path)
    study = open_study(made, folder)

    def worker() -> Claims:
        return Claims(open_study(made, folder), made, folder, 3, seed=0)

    for width in (5, 9, 7):
        study.enqueue_trial({WIDTH: width})
        ours = worker()
        with ours.next() as claim:
            assert claim is not None and not claim.taken_over
            made.sample(claim.trial)
            claim.trial.set_user_attr("folder", f"trial-{width}")
            ours.rest(claim, [float(width)], 1.0)
    with worker().next() as sent:  # all have reached rung 0: one in three, the best, climbs; then its worker dies
        assert sent is not None and sent.trial.params == {WIDTH: 9}
        assert sent.trial.user_attrs[CLIMB]["target"] == 1
    assert [trial.user_attrs.get(REASON, "") != "" for trial in study.trials] == [True, False, True]
    with worker().next() as again:
        assert again is not None and again.taken_over and again.trial.number == sent.trial.number
        assert again.trial.user_attrs[CLIMB] == sent.trial.user_attrs[CLIMB]


def test_more_trials_go_on_where_fewer_ended(tmp_path: Path) -> None:
    go(tmp_path, sweep(), 3)
    study = go(tmp_path, sweep(), 9)
    assert len(study.trials) == 9 and len(heights(study)[2]) >= 1


def waiting(*climbs: Climb) -> list[optuna.trial.FrozenTrial]:
    """Running trials that stand so."""
    trials = []
    for number, climb in enumerate(climbs):
        trial = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING, user_attrs={CLIMB: climb.as_json(), "folder": str(number)}
        )
        trial.number = number
        trials.append(trial)
    return trials


def test_who_may_climb_is_worked_out_by_hand() -> None:
    def on(*values: float) -> list[optuna.trial.FrozenTrial]:
        return waiting(*(Climb(0, ((value,),), (1.0,)) for value in values))

    def numbers(trials: list[optuna.trial.FrozenTrial]) -> list[int]:
        return [trial.number for trial in trials]

    five = on(1.0, 5.0, 2.0, 4.0, 3.0)
    assert numbers(climbers(five, sweep(), 100)) == [1]  # 5 // 3
    assert numbers(climbers([*five[:2]], sweep(), 100)) == []  # 2 // 3
    assert numbers(climbers([*five[:2]], sweep(), 2)) == [1]  # all that are wanted are in
    assert numbers(climbers(on(1.0, 5.0, 2.0, 4.0, 3.0, 6.0), sweep(), 100)) == [1, 5]
    assert numbers(climbers(five, sweep(unselected=1), 100)) == [0, 1]
    assert numbers(hopeless(five, sweep(), 9)) == [0, 2]  # at most 3 of 9 climb, and 3 or more beat these
    assert numbers(hopeless(five, sweep(unselected=1), 9)) == [2]
    gone = Climb(0, ((9.0,),), (1.0,)).sent_on()
    busy = waiting(gone, *(Climb(0, ((value,),), (1.0,)) for value in (1.0, 2.0)))
    assert numbers(climbers(busy, sweep(), 3)) == []  # the one that may is at work
    high = waiting(gone.reached([8.0], 1.0), *(Climb(0, ((value,),), (1.0,)) for value in (1.0, 2.0)))
    assert numbers(climbers(high, sweep(), 3)) == [0] and numbers(climbers(high, sweep(), 4)) == []


def test_two_objectives_climb_by_dominance() -> None:
    pair = (*rung("a"), Objective(stage="a", metric="error", label="error"))
    two = replace(sweep(), objectives=pair, ladder=Ladder(rungs=(pair,), factor=2))
    trials = waiting(*(Climb(0, (values,), (1.0,)) for values in ((9.0, 9.0), (8.0, 9.5), (1.0, 1.0), (0.5, 2.0))))
    assert [trial.number for trial in climbers(trials, two, 100)] == [0, 2]


def test_the_shipped_sweeps_lead_to_the_phone() -> None:
    ladder, ratio = load_sweep("scenes_ladder"), load_sweep("scenes_ratio")
    whole = probe(ladder)
    assert whole.problems() == [] and whole.stages[-1].kind == "deploy"
    assert [goal(ladder, whole, target)[1] for target in range(3)] == ["prune", "t2i", None]
    own = probe(ratio)
    assert ratio.finish is not None
    finished = ratio.finish(own)
    assert finished.problems() == [] and finished.stages[0] == own.stages[0] and finished.stages[-1].kind == "deploy"


def test_mistakes_in_a_ladder_are_told_at_once(tmp_path: Path) -> None:
    bad = replace(sweep(), ladder=Ladder(rungs=((*rung("a"), *rung("b")),), factor=1), grid={WIDTH: [1]})
    with pytest.raises(UserError) as told:
        go(tmp_path, bad, 1)
    assert [problem.what.partition(" ")[0] for problem in told.value.problems] == ["rung", "its", "it"]
    go(tmp_path, sweep(), 1)
    with pytest.raises(UserError, match="made by another space: other directions, ladder"):
        go(tmp_path, replace(sweep(), ladder=None), 1)


@pytest.mark.slow
def test_the_page_tells_what_the_rungs_are_worth(tmp_path: Path) -> None:
    made = replace(sweep(), ladder=Ladder(rungs=(rung("a"), rung("b", "error")), unselected=3))
    study = go(tmp_path, made, 6)
    folder = folder_of(made, tmp_path)
    told = read_study(folder)
    assert [len(trial.rungs) for trial in told.trials] == [
        len(trial.user_attrs[CLIMB]["values"]) for trial in study.trials
    ]
    counts = [row[-1] for row in rung_rows(told)[1:]]
    assert counts[0] == "6" and int(counts[2]) == len([t for t in study.trials if t.state.name == "COMPLETE"])
    found = {(a.lower, a.higher): a for a in agreements(told)}
    assert set(found) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert found["a", "c"].all.value == pytest.approx(1.0)  # the same width on both
    assert found["a", "c"].unselected is not None and found["a", "c"].unselected.count == 3
    page = write_study(folder).read_text()
    assert 'id="ladder"' in page and "| a | c | width of c |" in (folder / "report.md").read_text()
    assert len(agreement_rows(told)) == 4
    assert all(trial.wall_s and trial.wall_s < 60 for trial in told.trials)
    assert json.loads((folder / STUDY).read_text())["ladder"]["factor"] == 3


def test_tau_has_an_interval_where_there_is_something_to_go_by() -> None:
    pairs = [(float(x), float((7 * x) % 11)) for x in range(11)]
    found = tau(pairs)
    assert found.value is not None and found.low is not None and found.high is not None
    concordant = sum((a[0] - b[0]) * (a[1] - b[1]) > 0 for i, a in enumerate(pairs) for b in pairs[:i])
    assert found.value == pytest.approx((2 * concordant - 55) / 55) and found.low < found.value < found.high
    assert tau([(1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]) == tau([(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)])
    perfect = tau([(float(x), float(x)) for x in range(20)])
    assert perfect.value == pytest.approx(1.0) and perfect.low is None
    assert tau([(1.0, 1.0)]).value is None and tau([(1.0, 1.0), (1.0, 2.0)]).value is None
