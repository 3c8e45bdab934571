"""Publishing: what goes into the repository, and that the README says what the published cards say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from reports import grid
from reports.collect import collect
from reports.publish import BEGIN, END, SHEET, publish, results, split_readme
from reports.record import ReportError
from reports.sheet import CELL_PX, GAP_PX, draw_sheet
from tests.reports.synthetic import STAGES, make_run

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "README.md").write_text(f"# x\n\n{BEGIN}\nold\n{END}\nrest\n")
    return tmp_path


def test_the_readme_of_this_repository_holds_what_its_published_cards_say():
    before, after = split_readme((REPOSITORY / "README.md").read_text())
    assert (REPOSITORY / "README.md").read_text() == before + results(REPOSITORY / "reports" / "published") + after


def test_a_run_is_published_with_cards_report_and_pictures(repository):
    run = make_run(repository / "elsewhere")
    target = publish(run, repository)
    cards = sorted(path.parent.name.partition("-")[2] for path in target.glob("*/card.json"))
    assert cards == sorted(STAGES)
    assert json.loads((target / "40-joint" / "card.json").read_text())["name"]
    assert not list(target.rglob("*.safetensors"))
    assert Image.open(target / SHEET).width > 1000
    text = (repository / "README.md").read_text()
    assert text.startswith("# x\n") and text.endswith("rest\n") and "old" not in text
    assert "| deploy |" in text and "0.858" in text


def test_publishing_again_replaces_the_earlier_publication(repository):
    run = make_run(repository / "elsewhere", pictures=0)
    (publish(run, repository) / "stale").write_text("x")
    text = (repository / "README.md").read_text()
    target = publish(run, repository)
    assert not (target / "stale").exists() and (repository / "README.md").read_text() == text
    assert not (target / SHEET).exists()  # nothing to show


def test_cards_that_the_run_had_no_need_to_make_again_stay_published(repository):
    run = make_run(repository / "elsewhere", pictures=0)
    whole = publish(run, repository)
    cards = {path.relative_to(whole): path.read_bytes() for path in whole.glob("*/card.json")}
    text = (whole / "report.md").read_text()
    recipe = json.loads((run / "recipe.json").read_text())
    entries = {entry["folder"]: entry for entry in recipe["run"]["stages"]}
    shutil.rmtree(run / "20-t2i")  # as where the shipped artefact of a later stage was reused
    shutil.rmtree(run / "30-edit")
    entries["30-edit"]["key"] = "of another configuration"
    (run / "recipe.json").write_text(json.dumps(recipe))
    again = publish(run, repository)
    assert {path.relative_to(again) for path in again.glob("*/card.json")} == cards.keys() - {Path("30-edit/card.json")}
    assert all((again / path).read_bytes() == cards[path] for path in cards if path.parent.name != "30-edit")
    assert "t2i" in text and "| t2i |" in (again / "report.md").read_text()


def test_a_readme_without_markers_is_refused_and_left_alone(repository):
    (repository / "README.md").write_text("no markers")
    with pytest.raises(ReportError, match="results:begin"):
        publish(make_run(repository / "elsewhere", pictures=0), repository)
    assert (repository / "README.md").read_text() == "no markers"


def test_the_sheet_has_a_row_a_prompt_and_frames_verdicts(tmp_path):
    pictures = grid.build(collect(make_run(tmp_path)).chain, rows_per_task=1)
    sheet = draw_sheet(pictures)
    assert sheet.height > len(pictures.rows) * CELL_PX
    colors = {color for _, color in sheet.getcolors(1 << 20)}
    verdicts = {cell.ok for row in pictures.rows for cell in row.cells if cell}
    assert ((30, 140, 60) in colors) == (True in verdicts) and ((200, 40, 40) in colors) == (False in verdicts)
    assert sheet.width == 250 + (len(pictures.columns) + 1) * (CELL_PX + GAP_PX)


def test_a_damaged_picture_leaves_the_rest_of_the_sheet(tmp_path):
    pictures = grid.build(collect(make_run(tmp_path)).chain, rows_per_task=1)
    damaged = next(cell.file for cell in pictures.rows[0].cells if cell)
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert (120, 120, 120) in {color for _, color in draw_sheet(pictures).getcolors(1 << 20)}
