"""The whole chain as a user runs it: the shipped teacher to a context binary and a report, in all nine stages."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from diffusers import DreamLiteUNetModel
from PIL import Image

from reports.cards import read_verdicts

STAGES = (
    "10-prune",
    "20-t2i",
    "30-edit",
    "40-joint",
    "50-sft",
    "60-reward",
    "70-distill",
    "80-quantize",
    "90-deploy",
)
CHECKPOINT = {"card.json", "sampling.json", "samples", "scheduler", "text_encoder", "tokenizer", "unet", "vae"}


def pocketdiff(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "compress.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)  # with one thread, as conftest says: others run too


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    done = pocketdiff("run", "scenes_fast", "--runs", runs)
    assert done.returncode == 0, done.stderr[-4000:]
    return runs / "scenes_fast"


@pytest.mark.slow
def test_every_stage_leaves_a_whole_checkpoint_with_a_card(run: Path) -> None:
    assert [path.name for path in sorted(run.iterdir()) if path.name[:2].isdigit()] == list(STAGES)
    keys = {}
    for stage in STAGES:
        assert {path.name for path in (run / stage).iterdir()} >= CHECKPOINT, stage
        card = json.loads((run / stage / "card.json").read_text())
        keys[stage] = card["key"]
        assert card["metrics"]["parameters_m"] < 0.35 * 21.607376 and card["reused_from"] is None
        parents = [parent["key"] for parent in card["parents"]]
        assert len(parents) > 0 and (stage == "10-prune" or keys[STAGES[STAGES.index(stage) - 1]] in parents)
    assert len(set(keys.values())) == len(STAGES)


@pytest.mark.slow
def test_stock_diffusers_loads_the_student(run: Path) -> None:
    unet = DreamLiteUNetModel.from_pretrained(run / "40-joint", subfolder="unet")
    assert unet.config.block_out_channels == [64, 128, 192]


@pytest.mark.slow
def test_the_binary_is_whole_on_the_htp_and_computes_what_was_simulated(run: Path) -> None:
    assert list((run / "90-deploy").glob("*.bin"))
    metrics = json.loads((run / "90-deploy" / "card.json").read_text())["metrics"]
    assert metrics["float_ops_count"] == 0 and metrics["nodes_on_htp_percent"] == 100
    assert metrics["htp_vs_aimet_sqnr_db"] >= 55
    # int8 weights of a student that was hardly trained, calibrated on 8 trajectories; scenes itself is held to 35 dB
    assert metrics["htp_vs_float_sqnr_db"] >= 30


@pytest.mark.slow
def test_last_stages_can_be_compared_picture_by_picture(run: Path) -> None:
    own = {}
    for stage in STAGES[-3:]:
        metrics = json.loads((run / stage / "card.json").read_text())["metrics"]
        (own[stage],) = read_verdicts(run / stage)
        assert (own[stage].form, own[stage].pictures) == ("", 14)
        t2i = [digits.count("1") / len(digits) for (kind, _), digits in own[stage].tasks.items() if kind == "t2i"]
        assert sum(t2i) / len(t2i) == pytest.approx(metrics["t2i"])
    assert own["80-quantize"] == own["90-deploy"]
    assert {task: len(digits) for task, digits in own["70-distill"].tasks.items()} == {
        task: len(digits) for task, digits in own["80-quantize"].tasks.items()
    }


@pytest.mark.slow
def test_the_report_is_one_file_about_all_stages(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert all(stage.partition("-")[2] in page for stage in STAGES)
    assert not re.search(r"""(src|href)=["']https?:""", page)  # nothing is fetched
    assert (run / "report.md").stat().st_size > 1000


@pytest.mark.slow
def test_running_again_computes_nothing(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    again = pocketdiff("run", "scenes_fast", "--runs", run.parent)
    assert again.returncode == 0 and "running (" not in again.stdout + again.stderr
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")} == before


@pytest.mark.slow
def test_a_picture_comes_out_of_the_binary(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "circle.png"
    made = pocketdiff("generate", run / "90-deploy", "a red circle", "--runtime", "htp", "-o", target)
    assert made.returncode == 0, made.stderr[-2000:]
    assert target.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_the_bundle_alone_makes_the_same_picture(run: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(run / "90-deploy" / "bundle", tmp_path / "bundle")
    pictures = []
    for folder, target in ((run / "90-deploy", tmp_path / "whole.png"), (bundle, tmp_path / "alone.png")):
        made = pocketdiff("generate", folder, "a red circle", "--runtime", "onnx", "-o", target)
        assert made.returncode == 0, made.stderr[-2000:]
        pictures.append(np.asarray(Image.open(target)).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 3 and pictures[0].std() > 1
