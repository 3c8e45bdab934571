"""The table of deployed trials: one line a trial whatever went wrong, and links to pages that are there."""

import json
from pathlib import Path

from reports.study.deployed import INDEX, deployed_markdown, deployed_rows, read_deployed
from reports.study.html import write_study
from tests.reports.outline import Outline

OBJECTIVES = [{"label": "error"}]


def deployed(folder: Path) -> Path:
    """A study's folder with one trial on the phone, which has a page, and one that failed before it had."""
    stages = [{"folder": "90-deploy", "kind": "deploy", "metrics": {"nodes_on_htp_percent": 99.5}}]
    row = {"number": 0, "values": [0.5], "folder": "deployed/trial-0", "state": "deployed", "stages": stages}
    failed = {
        "number": 1,
        "folder": "deployed/trial-1",
        "state": "failed",
        "reason": "one.\nDo x.\n\ntwo.",
        "stages": [],
    }
    (folder / INDEX).write_text(json.dumps({"top": None, "objectives": OBJECTIVES, "rows": [row, row | failed]}))
    trial = {"number": 0, "state": "complete", "params": {}, "values": [0.5]}
    (folder / "study.json").write_text(json.dumps({"objectives": OBJECTIVES, "parameters": [], "trials": [trial]}))
    (folder / "deployed" / "trial-0").mkdir(parents=True)
    (folder / "deployed" / "trial-0" / "report.html").write_text("a page")
    return folder


def test_what_went_wrong_stays_in_its_row(tmp_path):
    text = deployed_markdown(read_deployed(deployed(tmp_path)))
    assert len(text.partition("| trial |")[2].splitlines()) == 4
    assert "failed: one. Do x.  two. | deployed/trial-1 |" in text


def test_only_a_page_that_is_there_is_linked(tmp_path):
    page = write_study(deployed(tmp_path)).read_text()
    assert Outline(page).open == []
    assert '<a href="deployed/trial-0/report.html">0</a>' in page
    assert "deployed/trial-1/report.html" not in page and '<th scope="row">1</th>' in page


def test_residency_on_the_htp_is_told(tmp_path):
    header, phone, failed = deployed_rows(read_deployed(deployed(tmp_path)))
    place = header.index("nodes on HTP, %")
    assert (phone[place], failed[place]) == ("99.5", "–")
