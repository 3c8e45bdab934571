"""Scores against hand-computed values, and the benchmark on generators whose score is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from compress.commands.evaluate import with_steps
from compress.data.scenes.world import render
from compress.errors import UserError
from compress.evaluation.pictures import contact_sheet, save_samples
from compress.evaluation.scenes_bench import (
    Score,
    edit_samples,
    evaluate,
    judge_editing,
    judge_generation,
    t2i_samples,
)
from students.system import to_pixels, to_tensor
from tests.tiny import tiny_system

N, SEED = 70, 3


def oracle(prompts, sources, first):
    """Draws the right picture for every prompt of the benchmark."""
    if sources is not None:
        scenes = [sample.target for sample in edit_samples(N, SEED)][first : first + len(prompts)]
    else:
        known = {s.prompt.tagged: s.scene for held_out in (False, True) for s in t2i_samples(N, SEED, held_out)}
        scenes = [known[prompt] for prompt in prompts]
    return to_tensor(render(scenes))


def test_the_oracle_scores_one():
    report = evaluate(oracle, N, SEED)
    assert (report.t2i.value, report.edit.value, report.overall.value) == (1.0, 1.0, 1.0)
    assert report.parts["held_out"].value == 1.0 and report.untouched_psnr_db > 70
    line = json.loads(report.to_json())
    assert line["t2i"] == line["edit"] == line["overall"] == 1.0 and line["intervals"]["t2i"][0] < 1.0
    assert "\n" not in report.to_json()


def test_copying_the_source_and_a_blank_score_zero():
    def copier(prompts, sources, first):
        return torch.ones(len(prompts), 3, 64, 64) if sources is None else sources

    report = evaluate(copier, N, SEED)
    assert (report.t2i.value, report.edit.value) == (0.0, 0.0)
    assert report.parts["carried_out"].value < 0.1  # 'unchanged' can hold where nothing was done
    assert report.untouched_psnr_db > 70


def test_wilson_interval_by_hand():
    score = Score.of(90, 100)
    assert (score.low, score.high) == (pytest.approx(0.8256, abs=1e-3), pytest.approx(0.9448, abs=1e-3))
    assert Score.of(0, 50).low == pytest.approx(0.0, abs=1e-9) and Score.of(50, 50).high == pytest.approx(1.0)
    mean = Score.mean([Score.of(90, 100), Score.of(50, 100)])
    assert mean.value == pytest.approx(0.7) and mean.low < 0.7 < mean.high and mean.n == 200


def test_the_same_prompts_at_one_seed():
    assert t2i_samples(20, 1) == t2i_samples(20, 1) != t2i_samples(20, 2)
    assert edit_samples(20, 1) == edit_samples(20, 1)
    assert {sample.prompt.task for sample in t2i_samples(12, 0)} == {sample.prompt.task for sample in t2i_samples(6, 0)}


def test_pictures_can_be_looked_at(tmp_path):
    judged = judge_generation(oracle, t2i_samples(N, SEED)[:4])
    judged += judge_editing(oracle, edit_samples(N, SEED)[:3])[0]
    save_samples(tmp_path, judged)
    rows = json.loads((tmp_path / "samples" / "samples.json").read_text())
    assert len(rows) == 7 and all((tmp_path / "samples" / row["file"]).is_file() for row in rows)
    assert [row["kind"] for row in rows] == ["t2i"] * 4 + ["edit"] * 3 and all(row["ok"] for row in rows)
    sheet = np.asarray(contact_sheet(judged, columns=4))
    assert sheet.shape[0] > 2 * 192 and sheet.std() > 10


def test_pixels_round_trip():
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    assert (to_pixels(to_tensor(images)) == images).all()
    assert to_pixels(torch.full((1, 3, 1, 1), 7.0)).max() == 255


def test_steps_can_be_asked_for_unless_the_checkpoint_walks_fixed_levels():
    system = tiny_system()
    assert with_steps(system, 3).sampling == replace(system.sampling, steps=3)
    few = system.with_unet(system.unet, replace(system.sampling, rungs=(1.0, 0.5)))
    with pytest.raises(UserError, match="walks 2 fixed noise levels"):
        with_steps(few, 3)
