import json
import re
from xml.etree import ElementTree

import pytest

from reports import plots_pruning
from reports.collect import collect
from reports.html import write_report
from reports.record import ReportError
from tests.reports.synthetic import make_run

GROUPS = {"mid_block.resnets.0.conv1": 0.04, "down_blocks.0.resnets.0.conv1": 0.2, "conv_in": 0.0}
ROWS = [
    {"group": name, "kind": "channel", "units": 64, "ratio_units": r, "dropped": int(64 * r), "velocity_mse": r * error}
    for name, error in GROUPS.items()
    for r in (0.25, 0.75)
]


@pytest.fixture
def run(tmp_path):
    run = make_run(tmp_path, pictures=0)
    for label in ("10-prune", "20-t2i"):
        key = json.loads((run / label / "card.json").read_text())["key"]
        write(run, label, key if label == "10-prune" else "of an earlier version")
    return run


def write(run, label, key, **changes):
    head = {"key": key, "criterion": "taylor", "samples": 32, "velocity_mean_square": 1.5, "rows": ROWS}
    (run / "sensitivity").mkdir(exist_ok=True)
    (run / "sensitivity" / f"{label}.json").write_text(json.dumps(head | changes))


def test_only_what_was_measured_on_the_present_network_is_shown(run):
    (found,) = collect(run).sensitivities
    assert (found.label, found.ratios_units, found.power) == ("prune", (0.25, 0.75), 1.5)
    assert [group.name for group in found.groups] == ["conv_in", *list(GROUPS)[1::-1]]
    page = write_report(run)
    assert page.read_text().count("<h3>Sensitivity of") == 1
    table = page.with_suffix(".md").read_text().partition("## Sensitivity of prune")[2]
    assert "| `down_blocks.0.resnets.0.conv1` | 64 | 0.0500 | 0.150 |" in table
    assert "| `conv_in` | 64 | 0 | 0 |" in table


def test_dots_stand_on_a_log_scale_and_no_change_left_of_it(run):
    (found,) = collect(run).sensitivities
    drawn = ElementTree.fromstring(plots_pruning.sensitivity(found))
    places = {}
    for mark in drawn.iter("g"):
        places[mark.find("title").text] = float(mark.find("circle").get("cx"))
    at = {error: x for tip, x in places.items() for error in re.findall(r"channels ([\d.]+)$", tip)}
    assert at["0.0500"] - at["0.0100"] == pytest.approx(at["0.150"] - at["0.0300"], abs=0.3)  # both are a factor of 5
    assert at["0"] < min(x for error, x in at.items() if error != "0")
    assert "conv_in: without 16 of 64 channels 0" in places


def test_without_any_change_there_is_no_figure(run):
    write(run, "10-prune", collect(run).stage("prune").key, rows=[row | {"velocity_mse": 0.0} for row in ROWS])
    (found,) = collect(run).sensitivities
    assert plots_pruning.sensitivity(found) == ""


def test_a_group_of_one_unit_has_a_row_without_figures(run):
    head = {"group": "mid_block.attentions.0.transformer_blocks.0.attn1", "kind": "head", "units": 1, "dropped": 0}
    lone = [head | {"ratio_units": ratio, "velocity_mse": 0.0} for ratio in (0.25, 0.75)]
    write(run, "10-prune", collect(run).stage("prune").key, rows=ROWS + lone)
    assert f"| `{head['group']}` | 1 | – | – |" in write_report(run).with_suffix(".md").read_text()


def test_a_damaged_file_is_named(run):
    write(run, "10-prune", "key", rows=[{"group": "conv_in"}])
    with pytest.raises(ReportError, match=r"10-prune\.json: not what `pocketdiff sensitivity` writes"):
        collect(run)
