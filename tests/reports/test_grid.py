"""A grid's page: means over seeds, the best against the control, and heat maps of what pruning left."""

import json
from xml.etree import ElementTree

import pytest

from reports import plots_pruning, words
from reports.record import ReportError
from reports.study import error_bars, kept
from reports.study.arms import arm_names, arms, contested, grid_rows, settings, verdicts
from reports.study.html import write_study
from reports.study.read import read_study
from tests.reports.outline import Outline
from tests.reports.synthetic_grid import BUDGETS_M, METHODS, OBJECTIVES, make_grid, write_record


@pytest.fixture
def small(tmp_path):
    return make_grid(tmp_path / "small", ("random", "taylor", "taylor, bk_sdm"), (10.8, 2.7))


def study_of(folder, grid, *trials):
    """A study with these (params, values of the first and the last objective)."""
    folder.mkdir()
    rows = [
        {
            "number": n,
            "state": "complete" if values else "fail",
            "params": params,
            "values": values and [values[0], 1.0, 1.0, 1.0, values[1]],
            "folder": "",
        }
        for n, (params, values) in enumerate(trials)
    ]
    write_record(folder, grid, rows)
    return read_study(folder)


def test_an_arm_is_the_mean_over_its_seeds(tmp_path):
    grid = {"width": [64, 32], "seed": [0, 1]}
    at = [({"width": w, "seed": s}, v) for w, s, v in ((32, 0, (1, 5)), (64, 1, (5, 5)), (32, 1, (3, 5)))]
    study = study_of(tmp_path / "s", grid, *at, ({"width": 32, "seed": 0}, (1.0, 5)), ({"width": 64, "seed": 0}, None))
    single, pair = arms(study)
    assert (single.params, single.means[0], single.spreads[0], len(single.trials)) == ({"width": 64}, 5.0, None, 1)
    assert (pair.params, pair.means[0], len(pair.trials)) == (
        {"width": 32},
        2.0,
        2,
    )  # the one that ran twice counts once
    assert pair.spreads[0] == pytest.approx(2**0.5)  # of 1 and 3: sqrt((1 + 1) / (2 - 1))
    header, first, second = grid_rows(study)
    assert header == ["width", *(label for _, _, label, _ in OBJECTIVES), "n"]
    assert (first[0], first[1], first[-1]) == ("64", "5.000", "1") and second[:2] == ["32", "2.0 ± 1.4"]


def test_a_mean_has_as_many_digits_as_its_spread_allows():
    assert words.plus_minus(0.12345, 0.0123) == "0.123 ± 0.012"
    assert words.plus_minus(12.3, 4.56) == "12.3 ± 4.6"
    assert words.plus_minus(123.4, 45.6) == "123 ± 46"
    assert words.plus_minus(10.69, 0.0) == words.plus_minus(10.69, None) == "10.69"


def test_arms_stand_side_by_side_in_each_setting(small):
    found = settings(read_study(small))
    assert [setting.label for setting in found] == ["budget 10.8\u00a0M", "budget 2.70\u00a0M"]
    assert arm_names(found) == ["random", "taylor", "taylor, bk_sdm"]
    assert contested(read_study(small), found) == [2, 3, 4]  # equal budgets: parameters and MACs say nothing


def test_the_best_is_told_from_the_control_only_by_more_than_both_spreads(tmp_path):
    grid = {"method": ["random", "taylor"], "seed": [0, 1]}
    near = ((4.0, 0), (6.0, 1), (1.0, 0), (3.0, 1))  # 5 ± 1.4 and 2 ± 1.4: 3 apart, 2.8 together
    params = [{"method": m, "seed": s} for m in grid["method"] for s in grid["seed"]]
    far = study_of(tmp_path / "far", grid, *zip(params, ((v, 0.5) for v, _ in near), strict=True))
    (verdict,) = verdicts(far, settings(far))
    assert (verdict.best, verdict.value, verdict.control, verdict.apart) == ("taylor", "2.0 ± 1.4", "5.0 ± 1.4", True)
    close = ((4.0, 0.5), (6.0, 0.5), (1.5, 0.5), (3.5, 0.5))  # 2.5 apart
    tied = study_of(tmp_path / "tied", grid, *zip(params, close, strict=True))
    assert [v.apart for v in verdicts(tied, settings(tied))] == [False]


def test_a_heat_map_has_a_column_an_arm_and_tells_dropped_layers(small):
    study = read_study(small)
    columns, _ = kept.kept_columns(study, settings(study))
    assert [(c.setting[:9], c.name) for c in columns[:3]] == [
        ("budget 10", "random"),
        ("budget 10", "taylor"),
        ("budget 10", "taylor, bk_sdm"),
    ]
    cell = columns[0].cells["down_blocks.2.resnets.0.conv1"]
    assert cell.share == 181 / 256 and cell.note.startswith("181 of 256 channels kept (71 %), with ")
    assert (
        "down_blocks.2.resnets.1.conv1" in columns[2].cells and "down_blocks.2.resnets.0.conv1" not in columns[2].cells
    )
    drawn = ElementTree.fromstring(plots_pruning.heat_map(columns, "x"))
    marks = list(drawn.iter("rect"))
    rows = len({name for column in columns for name in column.cells})
    assert len(marks) == rows * 6
    dropped = [mark for mark in marks if mark.get("class") == "dropped"]
    assert len(dropped) == sum(rows - len(column.cells) for column in columns)
    assert "layer dropped" in dropped[0].find("title").text


def test_arms_that_keep_equally_many_share_a_column_with_numbers(tmp_path):
    study = read_study(make_grid(tmp_path / "s", ("random", "taylor"), (10.8,)))
    columns, _ = kept.kept_columns(study, settings(study))
    (column,) = kept.merged(columns)
    assert column.name == "all 2" and column.cells["conv_in"].note == "64 of 64 channels kept (100 %)"
    drawn = plots_pruning.heat_map([column], "x")
    assert "71 %</text>" in drawn and "importance" not in drawn
    assert plots_pruning.heat_map([], "x") == ""


def test_error_bars_are_as_long_as_the_spread(small):
    study = read_study(small)
    found = settings(study)
    drawn = ElementTree.fromstring(error_bars.draw(study, found, [4], "x"))
    bars = [mark for mark in drawn.iter("line") if mark.get("class").startswith("whisker")]
    lengths = [float(bar.get("x2")) - float(bar.get("x1")) for bar in bars]
    spreads = [arm.spreads[4] for setting in found for arm in setting.arms.values()]
    assert len(bars) == 6
    per_unit = [length / spread for length, spread in zip(lengths, spreads, strict=True)]
    assert per_unit == pytest.approx([per_unit[0]] * 6, rel=0.05)  # one scale for all panels
    assert len([mark for mark in drawn.iter("rect") if mark.get("class") == "control-band"]) == 2


def test_many_settings_each_have_room_for_their_ticks(tmp_path):
    grid = {"method": ["random", "taylor"], "width": list(range(14))}
    trials = [({"method": m, "width": w}, (w + 1.0, 5)) for m in grid["method"] for w in grid["width"]]
    study = study_of(tmp_path / "s", grid, *trials)
    drawn = ElementTree.fromstring(error_bars.draw(study, settings(study), [0], "x"))
    axes = [mark for mark in drawn.iter("line") if mark.get("class") == "axis"]
    widths = [float(axis.get("x2")) - float(axis.get("x1")) for axis in axes]
    assert len(widths) == 14 and widths == pytest.approx([error_bars.LEAST_PX] * 14)


def test_the_page_is_one_whole_file_and_the_same_each_time(tmp_path):
    folder = make_grid(tmp_path / "s", unfinished=2)
    page = write_study(folder)
    outline, text = Outline(page.read_text()), page.read_text()
    assert outline.open == [] and outline.fetched == [] and set(outline.links) <= set(outline.ids)
    assert page.stat().st_size < 5_000_000
    cells = len(METHODS) * len(BUDGETS_M)
    assert f"{3 * cells - 2} of {3 * cells} combinations finished." in text and "2 running" in text
    assert text.count('class="num best"') == 3 * len(BUDGETS_M)
    before = page.read_bytes(), page.with_suffix(".md").read_bytes()
    assert write_study(folder) == page and (page.read_bytes(), page.with_suffix(".md").read_bytes()) == before


def test_the_same_stands_in_markdown(small):
    text = write_study(small).with_suffix(".md").read_text()
    assert "| taylor, bk_sdm | 2.7 |" in text and "## The best against random" in text
    table = text.partition("## Share of units kept, budget 10.8\u00a0M")[2]
    assert "| layer group | random | taylor | taylor, bk_sdm |" in table
    assert "| `down_blocks.2.resnets.0.conv1` | 0.71 | 0.71 | dropped |" in table


def test_a_sweep_that_has_only_begun_has_a_page(tmp_path):
    study_of(tmp_path / "s", {"width": [32], "seed": [0]})
    page = write_study(tmp_path / "s")
    assert "0 of 1 combinations finished." in page.read_text() and Outline(page.read_text()).open == []


def test_a_trial_whose_folder_is_gone_leaves_its_figures(small):
    for path in small.glob("trial-*/10-prune/card.json"):
        path.unlink()
        path.parent.rmdir()
        path.parent.parent.rmdir()
    text = write_study(small).read_text()
    assert "Share of units kept" not in text and "taylor, bk_sdm" in text


def test_a_damaged_run_folder_costs_its_widths_only(small):
    broken = read_study(small).trials[0]
    (small / broken.folder / "10-prune" / "card.json").write_text("{")
    text = write_study(small).read_text()
    assert f"The widths of trial {broken.number} are left out:" in text and "Share of units kept" in text


def test_a_grid_has_no_importances_and_no_history(small):
    text = write_study(small).read_text()
    drawn = [
        name for name in ("parallel", "slice", "timeline", "importance", "history") if f'id="{name}-figure"' in text
    ]
    assert drawn == ["parallel", "slice", "timeline"]
    assert not (small / "front.tex").exists() and r"taylor, bk\_sdm & 2.7 &" in (small / "results.tex").read_text()


def test_a_trial_outside_the_grid_is_named(small):
    record = json.loads((small / "study.json").read_text())
    record["trials"][3]["params"]["budget_m"] = 5
    (small / "study.json").write_text(json.dumps(record))
    with pytest.raises(ReportError, match="trial 3: budget_m is 5, none of the grid's values"):
        read_study(small)
