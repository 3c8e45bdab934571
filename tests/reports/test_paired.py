"""Differences on the same pictures: against the published example, by hand, by simulation, and on pages."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from compress.evaluation.verdicts import copy_verdicts, save_verdicts
from reports.cards import read_verdicts
from reports.collect import collect
from reports.record import ReportError, Verdicts
from reports.study import compare, paired
from reports.study.comparison import write_comparison
from reports.study.deployed import INDEX, deployed_rows, read_deployed, summary
from tests.reports.synthetic import make_run

A, B = ("t2i", "counting"), ("edit", "add")


def digits(count: int, ones: int) -> str:
    return "1" * ones + "0" * (count - ones)


def test_matched_error_by_hand() -> None:
    # 1,144 asked twice, 132 went one way, 107 the other: n + 2, both + 1/2
    base = "1" * 132 + "0" * 107 + "0" * 905
    new = "0" * 132 + "1" * 107 + "0" * 905
    by_hand = math.sqrt(132.5 + 107.5 - (107.5 - 132.5) ** 2 / 1146) / 1146
    assert paired.matched_error([(base, new)]) == pytest.approx(by_hand, rel=1e-12)
    assert paired.matched_error([(base[:500], new[:500]), (base[500:], new[500:])]) == pytest.approx(by_hand, rel=1e-12)


def test_equal_verdicts_are_not_taken_for_certainty() -> None:
    assert paired.matched_error([(digits(100, 40), digits(100, 40))]) == pytest.approx(1 / 102)
    assert paired.matched_error([("", "")]) is None and paired.matched_error([]) is None


def test_the_interval_covers_the_true_difference() -> None:
    """2,000 draws of 120 pairs, of which 6 % are lost and 3 % won: 95 % of the intervals hold -0.03."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(2_000):
        kind = rng.choice(4, size=120, p=[0.06, 0.03, 0.2, 0.71])
        base = "".join("1" if k in (0, 2) else "0" for k in kind)
        new = "".join("1" if k in (1, 2) else "0" for k in kind)
        error = paired.matched_error([(base, new)])
        assert error is not None
        covered += abs((new.count("1") - base.count("1")) / 120 + 0.03) <= 1.96 * error
    assert 0.93 <= covered / 2_000 <= 0.98


def of(form: str, t2i: str, edit: str, seed: int = 1) -> Verdicts:
    return Verdicts(form, seed, len(t2i), {A: t2i, B: edit})


def test_overall_is_the_mean_of_both_kinds_and_the_emulators_share_is_added() -> None:
    base, new = [of("", "1100", "1010")], [of("", "1000", "1011")]
    kinds = [paired.matched_error([("1100", "1000")]), paired.matched_error([("1010", "1011")])]
    both = math.hypot(*kinds) / 2
    assert paired.error(base, new, "headline", "t2i") == paired.error(base, new, *A) == kinds[0]
    assert paired.error(base, new, "headline", "overall") == pytest.approx(both)
    few = [of("aimet", "10", "00"), of("htp", "11", "00")]
    shift = math.hypot(paired.matched_error([("10", "11")]), paired.matched_error([("00", "00")])) / 2
    assert paired.error(base, new + few, "headline", "overall") == pytest.approx(math.hypot(both, shift))
    assert paired.error_of_forms(few, "aimet", "htp") == pytest.approx(shift)


def test_other_requests_are_not_paired() -> None:
    base = [of("", "1100", "1010")]
    assert paired.error(base, [], "headline", "overall") is None
    assert paired.error(base, [of("", "1100", "1010", seed=2)], "headline", "overall") is None
    only = [Verdicts("", 1, 4, {A: "1100"})]
    assert paired.error(base, only, "headline", "t2i") is not None
    assert paired.error(base, only, "headline", "overall") is None  # a mean over kinds against one without edits
    assert paired.error_of_forms(base, "float", "htp") is None


def test_files_hold_one_set_a_form(tmp_path: Path) -> None:
    save_verdicts(tmp_path, {"counting": "10", "edit_add": "01"}, 7, 2)
    save_verdicts(tmp_path, {"counting": "1"}, 7, 1, "htp")
    save_verdicts(tmp_path, {"counting": "11", "edit_add": "00"}, 7, 2)
    found = {verdicts.form: verdicts for verdicts in read_verdicts(tmp_path)}
    assert found[""] == Verdicts("", 7, 2, {A: "11", B: "00"}) and found["htp"] == Verdicts("htp", 7, 1, {A: "1"})
    child = tmp_path / "child"
    copy_verdicts(tmp_path, child)
    assert read_verdicts(child) == (found[""],)
    copy_verdicts(child / "nothing", tmp_path / "none")
    assert not (tmp_path / "none").exists() and read_verdicts(tmp_path / "none") == ()
    (child / "samples" / "verdicts.csv").write_text("form,seed,pictures,task,verdicts\n,7,2,counting,2x\n")
    with pytest.raises(ReportError, match=r"verdicts\.csv: no table of verdicts .* Run the stage again"):
        read_verdicts(child)


def test_runs_are_compared_picture_by_picture_where_they_can_be(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, name, pictures=0) for name in ("first", "second")]
    apart = row_of(runs)
    assert not apart.paired
    for run, t2i in zip(runs, (digits(300, 200), digits(300, 205)), strict=True):
        save_verdicts(run / "90-deploy", {"counting": t2i, "edit_add": digits(300, 100)}, 2024, 300)
    together = row_of(runs)
    assert together.paired and together.value == apart.value
    assert together.high - together.low < (apart.high - apart.low) / 2
    assert "Agresti and Min" in write_comparison(runs, tmp_path / "out").read_text()


def row_of(runs: list[Path]) -> compare.Difference:
    rows = compare.score_rows([compare.final(collect(run)) for run in runs])
    (found,) = (row.differences[1] for row in rows if (row.kind, row.name) == ("headline", "overall"))
    assert found is not None
    return found


def test_the_table_of_deployed_trials_says_how_sure_it_is(tmp_path: Path) -> None:
    metrics = {
        "distill": {"overall": 0.5},
        "quantize": {"overall": 0.5},
        "deploy": {"overall": 0.49, "htp_overall": 0.5, "float_overall": 0.5},
    }
    stages = [{"folder": f"70-{kind}", "kind": kind, "metrics": found} for kind, found in metrics.items()]
    row = {"number": 3, "values": [0.5], "folder": "deployed/trial-3", "state": "deployed", "stages": stages}
    (tmp_path / INDEX).write_text(json.dumps({"top": 1, "objectives": [{"label": "error"}], "rows": [row]}))
    run = tmp_path / "deployed" / "trial-3"
    save_verdicts(run / "70-distill", {"counting": "1100", "edit_add": "1010"}, 7, 4)
    save_verdicts(run / "70-deploy", {"counting": "1000", "edit_add": "1011"}, 7, 4)
    for form in ("float", "htp"):
        save_verdicts(run / "70-deploy", {"counting": "1100", "edit_add": "1010"}, 7, 4, form)
    index = read_deployed(tmp_path)
    assert index is not None
    told = dict(zip(*deployed_rows(index), strict=True))
    lost, same = (f"{1.96 * math.hypot(*([x] * 2)) / 2:.3f}" for x in (math.sqrt(2 - 1 / 6) / 6, 1 / 6))
    assert told["HTP − float"] == f"−0.010 ± {lost}" and told["emulator − float on those"] == f"+0.000 ± {same}"
    assert "on the same pictures" in summary(index)
