"""What pages offer to take along: figures and tables that they hold and name, in a headless Chromium."""

import io
import json
import xml.etree.ElementTree as ElementTree
from csv import reader

import pytest

from reports.html import write_report
from reports.study.html import write_study
from tests.reports.chromium import BINARY, READY, WATCH, Chromium
from tests.reports.synthetic import make_run
from tests.reports.synthetic_grid import make_grid

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BINARY is None, reason="there is no Chromium on this machine")]


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """Each test opens its own page."""
    with Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def test_a_grid_s_figures_and_tables_can_be_taken_along(tab, tmp_path):
    tab.open(write_study(make_grid(tmp_path / "grid", ("random", "taylor"))), READY)
    figures = "[...document.querySelectorAll('figure')].filter((figure) => figure.querySelector('svg'))"
    offered = tab.value(
        f"{figures}.map((f) => [...f.querySelectorAll('.downloads button')].map((b) => b.textContent).join())"
    )
    assert len(offered) > 5 and set(offered) == {"CSV,SVG,PNG"}
    tab.value(
        WATCH + "document.querySelectorAll('#settings .downloads button, #widths .downloads button').forEach("
        "(button) => { if (button.textContent === 'CSV') button.click(); });"
        "document.querySelector('#results .downloads button').click()"
    )
    *figures, results = tab.value("Promise.all(saved.map((blob) => blob.text()))")
    assert figures[0].startswith("setting,arm,objective,mean,standard deviation,n\n") and ",taylor," in figures[0]
    assert figures[-1].startswith('setting,arm,layer group,"Share of the importance kept')
    assert len({len(row) for row in reader(io.StringIO(results))}) == 1 and results.startswith("method,budget_m,")
    assert tab.errors == []


def test_tables_of_a_ladder_and_the_curve_of_a_trial_can_be_taken_along(tab, tmp_path):
    curve = [[100, 0.5], [200, 0.25]]
    trials = [
        {"number": n, "state": "complete", "params": {"x": n}, "values": [n], "rungs": [[n]], "intermediate": curve}
        for n in range(3)
    ]
    parameters = [{"name": "x", "kind": "int", "low": 0, "high": 3}]
    ladder = {"factor": 3, "rungs": [[{"label": "proxy", "stage": "a"}]]}
    raw = {"objectives": [{"label": "e", "stage": "b"}], "parameters": parameters, "trials": trials, "ladder": ladder}
    (tmp_path / "study.json").write_text(json.dumps(raw))
    tab.open(write_study(tmp_path), READY)
    tab.value(WATCH + "document.querySelectorAll('#ladder .downloads button').forEach((button) => button.click())")
    tab.value("document.querySelector('[data-trial] button').click()")
    tab.value("document.querySelector('dialog .downloads button').click()")
    rungs, agreements, steps = tab.value("Promise.all(saved.map((blob) => blob.text()))")
    assert rungs.splitlines() == ['Rung,By,"Reached by, trials"', "0,proxy of a,3", "top,e of b,3"]
    assert agreements.startswith("Rung,Against,Objective,")
    assert steps == "step,value\n100,0.5\n200,0.25\n"
    tab.press("Escape")
    assert tab.errors == []


def test_a_run_s_drawings_can_be_taken_along(tab, tmp_path):
    tab.open(write_report(make_run(tmp_path)))
    tab.wait("document.querySelector('.downloads')")
    figures = "[...document.querySelectorAll('figure')].filter((figure) => figure.querySelector('svg'))"
    offered = tab.value(f"{figures}.map((f) => [...f.querySelectorAll('.downloads button')].map((b) => b.ariaLabel))")
    assert len(offered) > 8 and all(len(labels) == 2 for labels in offered)
    assert len({label for labels in offered for label in labels}) == 2 * len(offered)  # each has a name of its own
    tab.value(WATCH + "document.querySelector('#training .downloads button').click()")
    (drawing,) = tab.value("Promise.all(saved.map((blob) => blob.text()))")
    assert ElementTree.fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg"
    assert tab.errors == []
