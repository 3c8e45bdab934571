import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reports import findings, grid
from reports.cards import read_record
from reports.collect import collect
from reports.html import write_report
from reports.markdown import render_markdown
from reports.plots_learning import samples_trained_on, scores_over_samples
from reports.record import ReportError
from tests.reports.outline import Outline
from tests.reports.synthetic import STAGES, make_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def bare(tmp_path):
    return make_run(tmp_path, pictures=0)


def edit_card(folder: Path, **changes) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | changes))


def test_the_page_is_one_file_that_asks_for_nothing(finished):
    page = write_report(finished)
    outline = Outline(page.read_text())
    assert outline.open == []
    assert all(source.startswith("data:image/png;base64,") for source in outline.fetched)
    assert len(outline.ids) == len(set(outline.ids))
    assert set(outline.links) <= set(outline.ids)
    assert "@import" not in page.read_text()
    assert page.stat().st_size < 5_000_000


def test_rendering_again_changes_no_byte(finished):
    page = write_report(finished)
    before = page.read_bytes(), page.with_suffix(".md").read_bytes()
    assert write_report(finished) == page
    assert (page.read_bytes(), page.with_suffix(".md").read_bytes()) == before


def test_every_stage_says_whether_it_ran_here(finished):
    text = write_report(finished).with_suffix(".md").read_text()
    made = dict(re.findall(r"^\| (\w+) \| (given|live|reused) \|", text, re.M))
    live = {"prune", "joint", "quantize", "deploy"}
    assert made == {"teacher": "given"} | {stage: "live" if stage in live else "reused" for stage in STAGES}
    assert "Computed in this run: prune, joint, quantize and deploy, in 3 h 15 min." in text
    assert "Reused from finished artefacts: t2i, edit, sft, reward and distill" in text


def test_figures_come_from_the_cards(finished):
    run = collect(finished)
    assert [record.label for record in run.chain] == ["teacher", *STAGES]
    joint = run.stage("joint")
    assert joint.parameters_m == 8.437
    assert joint.scores["edit"].value == 0.842
    assert joint.scores["edit"].count == 7 * 143
    assert joint.tasks["edit", "add"].low == pytest.approx(0.918 - 1.96 * (0.918 * 0.082 / 143) ** 0.5, abs=2e-3)
    assert run.stage("deploy").size_mb == 9.62  # the binary, not the float weights
    assert run.stage("joint").size_mb == 33.7
    assert run.stage("distill").steps == 4
    tiles = {tile.name: tile for tile in findings.tiles(run)}
    assert tiles["Parameters"].note.startswith("26 %")
    assert tiles["Sampling steps"].value == "4"


def test_operators_on_the_same_layer_add_up(bare):
    kept = {"a": {"x": {"units": 8, "kept": 6, "score_share": 0.8}, "y": {"units": 2, "kept": 2}}}
    kept["b"] = {"x": {"units": 6, "kept": 3, "score_share": 0.5}, "y": {"units": 2, "kept": 1, "score_share": 0.9}}
    edit_card(bare / "10-prune", extra={"kept": kept})
    found = collect(bare).stage("prune").kept
    assert (found["x"].units, found["x"].kept, found["x"].share, found["x"].score_share) == (8, 3, 0.375, 0.4)
    assert found["y"].score_share == 0.9


def test_widths_are_told_of_the_teacher_s_layers(bare):
    """Layer 0 was dropped before the widths; the pointwise convolution was made after them."""
    kept = {"width": {"up_blocks.0.resnets.0.conv1": {"units": 8, "kept": 8}}}
    kept["ff"] = {"up_blocks.0.resnets.0.conv1.pointwise": {"units": 16, "kept": 16}}
    edit_card(bare / "10-prune", extra={"kept": kept, "depth": {"up_blocks.0.resnets": [1]}})
    assert list(collect(bare).stage("prune").kept) == ["up_blocks.0.resnets.1.conv1"]


def test_parity_compares_each_form_with_the_one_before(finished):
    rows = findings.parity(collect(finished))
    assert [row.record.label for row in rows] == ["distill", "quantize", "deploy"]
    assert rows[0].passed is None
    assert rows[1].lost == pytest.approx(0.902 - 0.898)
    assert rows[1].passed


def test_a_loss_beyond_the_allowance_is_said(bare):
    card = json.loads((bare / "90-deploy" / "card.json").read_text())
    edit_card(bare / "90-deploy", metrics=card["metrics"] | {"overall": 0.5})
    assert findings.parity(collect(bare))[-1].passed is False
    assert "✗ beyond" in write_report(bare).read_text()


def test_a_parent_with_another_hash_is_said(bare):
    assert "another hash" not in write_report(bare).read_text()
    edit_card(bare / "40-joint", content_hash="0" * 64)
    broken = [link.record.label for link in findings.links(collect(bare)) if link.sound is False]
    assert broken == ["sft"]
    assert "the parent here has another hash" in write_report(bare).read_text()


def test_missing_stages_and_pictures_leave_a_whole_page(bare):
    for folder in ("20-t2i", "30-edit", "90-deploy"):
        shutil.rmtree(bare / folder)
    recipe = json.loads((bare / "recipe.json").read_text())
    recipe["run"]["stages"][1]["action"] = "not needed"
    (bare / "recipe.json").write_text(json.dumps(recipe))
    page = write_report(bare).read_text()
    assert Outline(page).open == []
    assert 'id="pictures"' not in page
    assert "not needed: a later stage was there already" in page
    assert "not made yet" in page
    assert [slot.label for slot in collect(bare).slots] == ["teacher", *STAGES]


def test_neighbours_absent_for_one_reason_are_one_line(bare):
    for folder in ("20-t2i", "30-edit"):
        shutil.rmtree(bare / folder)
    slots = collect(bare).slots
    assert [slot.label for slot in slots[1:4]] == ["prune", "t2i to edit, 2 stages", "joint"]
    assert slots[2].number == "20–30" and slots[2].reason == "not made yet"


def test_parity_says_how_many_pictures_it_rests_on(bare):
    edit_card(bare / "90-deploy", metrics={"overall": 0.9, "emulated_pictures_count": 14.0})
    assert findings.parity(collect(bare))[-1].samples == "14 emulated, paired"


def with_qat(run: Path) -> None:
    """A run whose quantized student was trained on its grids before it was deployed."""
    shutil.copytree(run / "80-quantize", run / "85-qat")
    card = json.loads((run / "85-qat" / "card.json").read_text())
    told = {"overall": 0.88, "aimet_vs_float_sqnr_db_before": 40.0, "aimet_vs_float_sqnr_db": 43.1}
    edit_card(run / "85-qat", name="85-qat", stage="qat", key="q", metrics=card["metrics"] | told)
    card = json.loads((run / "90-deploy" / "card.json").read_text())
    told = {"overall": 0.87, "aimet_vs_float_sqnr_db": 42.9}
    edit_card(run / "90-deploy", metrics=card["metrics"] | told)


def test_training_on_the_grids_is_a_form_of_its_own(bare):
    with_qat(bare)
    run = collect(bare)
    rows = findings.parity(run)
    assert [row.record.label for row in rows] == ["distill", "quantize", "qat", "deploy"]
    assert [row.lost for row in rows[2:]] == pytest.approx([0.898 - 0.88, 0.88 - 0.87])
    assert "qat" in [record.label for record, _ in findings.device_facts(run)]


def test_measurements_before_and_after_training_on_the_grids_are_told_apart(bare):
    with_qat(bare)
    text = render_markdown(collect(bare))
    for line in (
        "| Quantize AIMET vs float SQNR | 40.2 dB |",
        "| QAT AIMET vs float SQNR before | 40.0 dB |",
        "| QAT AIMET vs float SQNR | 43.1 dB |",
        "| Deploy AIMET vs float SQNR | 42.9 dB |",
        "| HTP vs AIMET SQNR | 69.8 dB |",
    ):
        assert line in text
    shutil.rmtree(bare / "85-qat")
    assert "| AIMET vs float SQNR | 42.9 dB |" in render_markdown(collect(bare))


def test_a_card_with_the_least_it_must_have_is_enough(tmp_path):
    folder = tmp_path / "10-vae"
    folder.mkdir()
    (folder / "card.json").write_text(json.dumps({"name": "10-vae", "stage": "vae", "key": "k"}))
    page = write_report(tmp_path).read_text()
    assert Outline(page).open == []
    assert "vae" in page


def test_quick_checks_are_told_from_the_benchmark(bare):
    edit_card(bare / "40-joint", metrics={"quick_t2i": 0.9}, extra={})
    score = collect(bare).stage("joint").scores["t2i"]
    assert score.rough
    assert "≈ 0.900" in write_report(bare).read_text()


def test_text_from_cards_is_escaped(bare):
    recipe = json.loads((bare / "recipe.json").read_text())
    (bare / "recipe.json").write_text(json.dumps(recipe | {"description": "<script>alert(1)</script>"}))
    assert "<script>alert" not in write_report(bare).read_text()


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("{", "not JSON"),
        ('{"name": "x"}', "a card has at least key, name, stage"),
        ('{"name": "x", "stage": "t2i", "key": "k", "speed": 1}', "unknown fields speed"),
    ],
)
def test_a_damaged_card_is_named(bare, card, said):
    (bare / "20-t2i" / "card.json").write_text(card)
    with pytest.raises(ReportError, match=said) as error:
        collect(bare)
    assert "20-t2i" in str(error.value)


def test_an_empty_run_folder_says_what_to_do(tmp_path):
    with pytest.raises(ReportError, match="pocketdiff run"):
        write_report(tmp_path)


def test_the_grid_lines_prompts_up_across_stages(finished):
    chain = collect(finished).chain
    built = grid.build(chain)
    assert [record.label for record in built.columns] == ["teacher", *STAGES]
    assert len(built.rows) == 13
    for row in built.rows:
        asked = {cell.prompt for cell in row.cells if cell}
        assert asked == {row.prompt}
        assert (row.source is not None) == (row.kind == "edit")
        assert (row.cells[0] is None) == (row.kind == "edit")  # the teacher cannot edit
    kinds = [row.kind for row in built.rows]
    assert kinds == sorted(kinds, reverse=True)  # generation first


def test_a_small_budget_takes_the_tasks_in_turn(finished):
    chain = collect(finished).chain
    everything = grid.build(chain)
    half = sum(p.stat().st_size for row in everything.rows for p in grid._pictures(row)) // 2
    built = grid.build(chain, budget_bytes=half)
    assert 0 < len(built.rows) < len(everything.rows)
    assert built.left_out == len(everything.rows) - len(built.rows)
    assert {row.kind for row in built.rows} == {"t2i", "edit"}


def test_a_teacher_elsewhere_is_found_only_if_it_is_the_parent(bare):
    run = collect(bare)
    assert run.teacher is not None
    assert run.teacher.number == ""
    edit_card(run.teacher.folder, key="another")
    assert collect(bare).teacher is None
    assert read_record(run.teacher.folder, outside=True).label == "teacher"


def test_reports_never_import_torch():
    code = "import sys, reports.html; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def trained(folder: Path, steps: int, t2i: float) -> None:
    recipe = {"name": folder.name[3:], "kind": "flow", "steps": steps, "batch_size": 32}
    card = json.loads((folder / "card.json").read_text())
    metrics = card["metrics"] | {"t2i": t2i, "t2i_low": t2i - 0.02, "t2i_high": t2i + 0.02}
    edit_card(folder, stage="flow", recipe=recipe, metrics=metrics)


def test_scores_stand_over_all_samples_trained_on_so_far(bare):
    for (folder, steps), t2i in zip(
        (("20-t2i", 1000), ("30-edit", 250), ("40-joint", 500)), (0.5, 0.6, 0.7), strict=True
    ):
        trained(bare / folder, steps, t2i)
    run = collect(bare)
    rows = [(seen, record.label) for seen, record in samples_trained_on(run.chain)]
    assert rows == [(32.0, "t2i"), (40.0, "edit"), (56.0, "joint")]
    drawn = scores_over_samples(run.chain)
    assert "generation 0.700" in drawn and "joint, generation: 0.700 (0.680 to 0.720" in drawn
    assert "teacher 0.952" in drawn
    assert scores_over_samples(run.chain[:3]) == ""  # two points are no curve
