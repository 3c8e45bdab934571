import re
from xml.etree import ElementTree

import pytest

from reports import plots, svg


def test_linear_ticks_are_round_and_inside():
    assert svg.linear_ticks(0, 1, 4) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert svg.linear_ticks(-3, 9, 4) == [-2.0, 0.0, 2.0, 4.0, 6.0, 8.0]
    assert svg.linear_ticks(2, 2) == [2]


def test_log_ticks_thicken_until_there_are_three():
    assert svg.log_ticks(0.001, 10) == pytest.approx([0.001, 0.01, 0.1, 1, 10])
    assert svg.log_ticks(0.02, 0.5) == pytest.approx([0.03, 0.1, 0.3])


def test_a_scale_maps_its_ends_and_its_middle():
    scale = svg.Scale(0, 10, 100, 200)
    assert (scale(0), scale(5), scale(10)) == (100, 150, 200)
    log = svg.Scale(1, 100, 0, 2, log=True)
    assert log(10) == pytest.approx(1)
    assert svg.Scale(3, 3, 0, 10)(3) == 5  # an empty range stays in the middle


def test_thinning_keeps_the_mean_and_the_last_point():
    points = [(float(i), float(i % 2)) for i in range(1001)]
    thinned = svg.thin(points, most=100)
    assert len(thinned) <= 100
    assert thinned[-1] == points[-1]
    assert thinned[0][1] == pytest.approx(0.5, abs=0.05)
    assert svg.thin(points[:5]) == points[:5]


def test_smoothing_leaves_a_straight_line_as_it_is():
    points = [(float(i), 2.0 * i) for i in range(20)]
    assert [y for _, y in svg.smooth(points, 7)] == pytest.approx([y for _, y in points])


def test_an_empty_chart_is_nothing():
    assert plots.chart({}, "none") == ""
    assert plots.chart({"loss": []}, "none") == ""
    assert plots.scores_over_stages([]) == ""
    assert plots.sqnr_bars({}) == ""


def test_a_wide_range_makes_a_log_axis_and_a_value_of_zero_does_not():
    assert ">0.01<" in plots.chart({"loss": [(0, 1.0), (1, 0.1), (2, 0.01)]}, "x")
    assert ">0.01<" not in plots.chart({"loss": [(0, 1.0), (1, 0.1), (2, 0.0)]}, "x")


def test_charts_are_well_formed_even_with_odd_names():
    drawn = plots.chart({"a<b & c": [(0, 1.0), (1, 2.0)]}, 'say "x" < y')
    assert ElementTree.fromstring(drawn).get("aria-label") == 'say "x" < y'


def test_each_pruning_step_is_a_row_and_a_refit_tells_both_errors():
    rows = [
        {"step": "teacher", "title": "the <teacher>", "parameters_m": 31.9, "velocity_mse": 0.0},
        {"step": "depth", "parameters_m": 20.1, "velocity_mse": 0.4, "velocity_mse_fitted": 0.3},
    ]
    drawn = ElementTree.fromstring(plots.evolution(rows))
    told = ["".join(element.itertext()) for element in drawn.iter("text")]
    assert "the <teacher>" in told
    assert "depth" in told
    assert "0.300  from 0.400" in told
    assert not any("MACs" in label for label in told)  # no row has them
    widths = [float(bar.get("width")) for bar in drawn.iter("rect")]
    assert max(widths) == widths[0]  # the teacher's parameters are the longest bar of their column
    assert plots.evolution([]) == ""


def test_sqnr_below_its_least_value_is_marked():
    drawn = plots.sqnr_bars(
        {"htp_vs_aimet_sqnr_db": 52.3, "htp_vs_float_sqnr_db": 39.9, "aimet_vs_float_sqnr_db": 40.0}
    )
    assert re.search(r"52\.3 dB\s+✗ below 55", drawn)
    assert re.search(r"39\.9 dB\s+✓ at least 35", drawn)
    assert drawn.count('class="least"') == 2  # nothing is required of the third


def test_colours_follow_generation_and_editing():
    assert plots.colours(["loss", "loss_t2i", "loss_edit"]) == ["s3", "s1", "s2"]
    assert plots.colours(["loss", "loss_kd"]) == ["s3", "s4"]
    assert plots.colours(["t2i", "edit", "overall"]) == ["s1", "s2", "s3"]
