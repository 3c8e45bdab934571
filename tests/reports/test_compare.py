"""Comparison of runs: differences with intervals, tests worked out by hand, and the page."""

import json
import math
from pathlib import Path

import pytest

from reports.collect import collect
from reports.record import ReportError, Score
from reports.study import compare
from reports.study.comparison import label_of, write_comparison
from tests.reports.outline import Outline
from tests.reports.synthetic import make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs that differ in a learning rate and in what came of it."""
    root = tmp_path_factory.mktemp("compared")
    first, second = make_run(root / "a", "first"), make_run(root / "b", "second", pictures=0)
    for name in ("70-distill", "80-quantize", "90-deploy"):
        change(second / name, overall=0.5, overall_low=0.47, overall_high=0.53)
    card = json.loads((second / "20-t2i" / "card.json").read_text())
    card["recipe"]["learning_rate"] = 0.001
    (second / "20-t2i" / "card.json").write_text(json.dumps(card))
    return [first, second]


def change(folder: Path, **metrics) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"metrics": card["metrics"] | metrics}))


def test_two_proportions_by_hand():
    # 60 of 100 against 45 of 100: pooled 0.525, error sqrt(0.525 * 0.475 * 0.02) = 0.070622, z = 2.12398
    assert compare.two_proportions(0.45, 100, 0.60, 100) == pytest.approx(0.03367, abs=1e-5)
    assert compare.two_proportions(1.0, 50, 1.0, 70) == 1.0
    assert compare.two_sided(1.959964) == pytest.approx(0.05, abs=1e-6)


def test_newcombes_interval_of_his_own_example():
    # Newcombe (1998), table II (a): 56 of 70 against 48 of 80, score interval 0.0524 to 0.3339
    base, new = Score(0.6, 0.4905, 0.7004, 80), Score(0.8, 0.6918, 0.8771, 70)
    found = compare.difference(base, new, share=True)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=2e-4), pytest.approx(0.3339, abs=2e-4))
    assert found.certain and found.overlap


def test_means_are_tested_by_their_intervals():
    base, new = Score(0.5, 0.46, 0.54), Score(0.6, 0.57, 0.63)
    found = compare.difference(base, new, share=False)
    error = math.hypot(0.08, 0.06) / (2 * 1.959964)
    assert found.p_value == pytest.approx(math.erfc(0.1 / error / math.sqrt(2)))
    assert found.overlap is False and found.certain
    assert (found.low, found.high) == (pytest.approx(0.05), pytest.approx(0.15))


def test_scores_without_intervals_have_a_difference_only():
    found = compare.difference(Score(0.5), Score(0.4, 0.3, 0.5, 100), share=True)
    assert found == compare.Difference(pytest.approx(-0.1))
    assert not found.certain


def test_the_last_checkpoints_are_compared(runs):
    first, second = map(collect, runs)
    finals = [compare.final(run) for run in (first, second)]
    assert [record.label for record in finals] == ["deploy", "deploy"]
    overall = next(row for row in compare.score_rows(finals) if row.name == "overall")
    assert overall.differences[0] is None
    assert overall.differences[1].value == pytest.approx(0.5 - finals[0].scores["overall"].value)
    assert overall.differences[1].certain and overall.differences[1].p_value < 1e-6
    same = next(row for row in compare.score_rows(finals) if row.kind == "edit")
    assert same.differences[1].value == 0 and same.differences[1].p_value == pytest.approx(1.0)
    assert compare.recipe_differences([first, second]) == [("t2i.learning_rate", [0.0003, 0.001])]


def test_stages_are_lined_up_by_name(runs):
    rows = compare.stage_rows([collect(run) for run in runs])
    assert [row.name for row in rows] == [
        "prune",
        "t2i",
        "edit",
        "joint",
        "sft",
        "reward",
        "distill",
        "quantize",
        "deploy",
    ]
    assert [row.differences[1].certain for row in rows] == [False] * 6 + [True] * 3


def test_the_page_is_one_file_that_asks_for_nothing(runs, tmp_path):
    page = write_comparison(runs, tmp_path / "out")
    outline = Outline(page.read_text())
    assert outline.open == []
    assert all(source.startswith("data:image/png;base64,") for source in outline.fetched)
    assert len(outline.ids) == len(set(outline.ids)) and set(outline.links) <= set(outline.ids)
    for name in ("comparison.md", "comparison.tex"):
        assert "−0." in (page.parent / name).read_text() or "$-$0." in (page.parent / name).read_text()
    assert "first against second" in page.read_text()


def test_three_runs_are_each_compared_with_the_first(runs, tmp_path):
    third = make_run(tmp_path / "c", "third", pictures=0)
    page = write_comparison([*runs, third])
    assert page.parent == runs[0].parent / "comparison-first-second-third"
    header = page.with_suffix(".md").read_text().splitlines()[2]
    assert "second − first" in header and "third − first" in header


def test_a_run_without_scores_or_named_twice_is_said(runs, tmp_path):
    with pytest.raises(ReportError, match="named twice"):
        write_comparison([runs[0], runs[0]])
    bare = tmp_path / "10-vae"
    bare.mkdir()
    (bare / "card.json").write_text(json.dumps({"name": "10-vae", "stage": "vae", "key": "k"}))
    with pytest.raises(ReportError, match="no scores to compare"):
        write_comparison([runs[0], tmp_path])


def test_a_stage_keeps_its_name_where_a_score_has_the_same(runs, tmp_path):
    found = compare.stage_rows([collect(run) for run in runs])
    assert {row.kind for row in found} == {"stage"}
    assert [label_of(row) for row in found][1:3] == ["t2i", "edit"]
    page = write_comparison(runs, tmp_path / "out").read_text()
    stages = page[page.index('data-csv="stages"') :].partition("</table>")[0]
    assert ">edit<" in stages and "editing" not in stages and "generation" not in stages
