"""Flow training on the smallest real system: what is learned, what is left alone, exact resumption after kill -9."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from compress.config.flow import FlowConfig, TeacherConfig
from compress.data.scenes.dataset import open_pool
from compress.objectives.flow_matching import foreground_weight
from compress.stages import flow, teacher
from compress.stages.base import Frozen
from students.system import DiffusionSystem, SamplingDefaults
from students.unet import velocity_model
from tests.tiny import context, tiny_system

CONFIG = FlowConfig(
    name="joint",
    steps=6,
    batch_size=6,
    precision="fp32",
    pool_samples=12,
    warmup_steps=1,
    validate_images=0,
    distill_weight=0.0,
    log_every=1,
    checkpoint_every_s=0,
)


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    tiny_system().save(tmp_path / "parent")
    return tmp_path / "parent"


def pools(system: DiffusionSystem, folder: Path) -> dict:
    return {task: open_pool(system, task, 12, 0, folder) for task in ("t2i", "edit")}


def test_a_batch_is_edits_first_then_generation_with_an_empty_panel(tmp_path):
    system = tiny_system()
    config = replace(CONFIG, drop_text=0.0, drop_source=0.0, edit_share=0.5)
    drawn = flow.BatchMaker(system, pools(system, tmp_path), config).draw(torch.Generator().manual_seed(0))
    assert drawn.edits == 3 and drawn.condition.edits_b.tolist() == [True] * 3 + [False] * 3
    assert (drawn.weight_b1hw[3:] == 1).all() and (drawn.weight_b1hw >= 1).all()
    assert drawn.condition.size_b2.tolist() == [[64.0, 64.0]] * 6


def test_dropping_everything_leaves_the_null_condition(tmp_path):
    system = tiny_system()
    config = replace(CONFIG, drop_text=0.0, drop_source=0.999999)
    drawn = flow.BatchMaker(system, pools(system, tmp_path), config).draw(torch.Generator().manual_seed(0))
    null = system.encode_text([""])
    assert not drawn.condition.source_bchw.any()
    torch.testing.assert_close(drawn.condition.tokens_btd, null.tokens_btd.expand(6, -1, -1))


def test_a_pool_is_what_encoding_its_pictures_gives(tmp_path):
    system = tiny_system()
    pool = pools(system, tmp_path)["edit"]
    outside = pool.mask_bhw == 0
    change = (pool.target_bchw.float() - pool.source_bchw.float()).abs().amax(1)
    assert len(pool) == 12 and set(pool.mask_bhw.unique().tolist()) <= {0.0, 1.0}
    assert change[~outside].mean() > 5 * change[outside].mean()  # the mask covers what the edit changed
    weight = foreground_weight(pool.mask_bhw[:, None].float())
    area = pool.mask_bhw[0].float().mean()
    assert weight[0].max() == pytest.approx(float(1 - torch.log2(area)))


def test_edits_are_trained_nearer_to_noise_than_generations(tmp_path):
    system = tiny_system()
    config = replace(CONFIG, batch_size=4, sigma_mean=-1.0, sigma_std=1e-6, edit_sigma_mean=2.0)
    stage = flow.FlowStage(config, context(tmp_path / "s").progress, system, pools(system, tmp_path))
    drawn = stage.batches.draw(torch.Generator().manual_seed(0))
    sigma_b = stage.draw_levels(drawn, torch.Generator().manual_seed(0))
    expected = torch.sigmoid(torch.tensor([2.0, 2.0, -1.0, -1.0]))
    torch.testing.assert_close(sigma_b, expected, atol=1e-5, rtol=0)


def test_the_loss_of_a_perfect_denoiser_is_zero(tmp_path, monkeypatch):
    system = tiny_system()
    stage = flow.FlowStage(CONFIG, context(tmp_path / "s").progress, system, pools(system, tmp_path))
    seen = {}

    class Oracle:
        def velocity(self, x_bchw, sigma_b, condition):
            return (x_bchw - seen["x0"]) / sigma_b[:, None, None, None]  # (x - x0) / sigma = eps - x0

    draw = stage.batches.draw
    monkeypatch.setattr(stage.batches, "draw", lambda g: seen.setdefault("batch", draw(g)))
    monkeypatch.setattr(flow, "velocity_model", lambda unet: Oracle())
    drawn = stage.batches.draw(torch.Generator().manual_seed(1))
    seen["x0"] = drawn.x0_bchw
    assert float(stage.step(0, torch.Generator().manual_seed(2)).loss) < 1e-6


@pytest.mark.slow
def test_the_teacher_is_a_guest(parent, tmp_path):
    system = DiffusionSystem.load(parent)
    guide = velocity_teacher()
    config = replace(CONFIG, distill_weight=1.0)
    stage = flow.FlowStage(config, context(tmp_path / "s").progress, system, pools(system, tmp_path), guide)
    before = [weight.clone() for weight in guide.parameters()]
    result = stage.step(0, torch.Generator().manual_seed(0))
    result.loss.backward()
    assert result.terms["loss_kd"] > 0
    assert all(torch.equal(now, then) for now, then in zip(guide.parameters(), before, strict=True))
    assert all(weight.grad is None for weight in guide.parameters()) and not guide.training
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in stage.trained.parameters())
    assert not any("teacher" in name or "vae" in name for name in stage.state_dict())
    assert isinstance(stage._teacher, Frozen)


@pytest.mark.parametrize(("data_weight", "distill_weight"), [(1.0, 1.0), (0.25, 2.0), (0.0, 1.0)])
def test_generations_weigh_data_and_teacher_and_edits_the_data_alone(parent, tmp_path, data_weight, distill_weight):
    config = replace(CONFIG, edit_share=1 / 3, data_weight=data_weight, distill_weight=distill_weight)
    system = DiffusionSystem.load(parent)
    stage = flow.FlowStage(
        config, context(tmp_path / "s").progress, system, pools(system, tmp_path), velocity_teacher()
    )
    result = stage.step(0, torch.Generator().manual_seed(0))
    edit, t2i, kd = (float(result.terms[f"loss_{name}"]) for name in ("edit", "t2i", "kd"))
    assert float(result.loss.detach()) == pytest.approx(
        (edit + 2 * (data_weight * t2i + distill_weight * kd)) / 3, rel=1e-5
    )


def test_kept_edits_cost_nothing_at_the_parents_own_weights_and_their_squared_distance_elsewhere(parent, tmp_path):
    config = replace(CONFIG, edit_share=1.0, keep_edits=True)
    system = DiffusionSystem.load(parent)
    stage = flow.FlowStage(config, context(tmp_path / "s").progress, system, pools(system, tmp_path))
    assert float(stage.step(0, torch.Generator().manual_seed(0)).loss) == 0.0
    with torch.no_grad():
        stage.trained.conv_out.bias += 0.5  # moves every velocity by as much
    assert float(stage.step(0, torch.Generator().manual_seed(0)).loss) == pytest.approx(0.25, rel=1e-4)
    assert not any("parent" in name for name in stage.state_dict())


def velocity_teacher():
    config = TeacherConfig(steps=1, widths=(64, 64, 64), depths=(1, 1, 1), size_embedding=32)
    return teacher.build(config, latent_channels=4, latent_side=8, text_width=32)


def train(folder: Path, parent: Path, config: FlowConfig = CONFIG) -> dict:
    flow.run(config, context(folder, parent))
    return load_file(folder / "out" / "unet" / "diffusion_pytorch_model.safetensors")


def test_training_writes_a_checkpoint_that_loads(parent, tmp_path):
    weights = train(tmp_path / "a", parent)
    system = DiffusionSystem.load(tmp_path / "a" / "out")
    assert system.edits and system.sampling == SamplingDefaults(28, 1.5, 1.5, 1.0, 3.0)
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    x, sigma = torch.randn(1, 4, 8, 8), torch.tensor([0.5])
    assert velocity_model(system.unet).velocity(x, sigma, system.encode_text(["a"])).shape == x.shape


@pytest.mark.slow
def test_the_error_against_the_teacher_is_zero_for_the_teacher_and_on_the_card_otherwise(parent, tmp_path):
    system, guide = DiffusionSystem.load(parent), velocity_teacher().eval()

    class Twin(torch.nn.Module):
        config = guide.config

        def forward(self, sample, **told):
            half = sample.shape[3] // 2
            return (torch.cat([guide(sample[..., :half], **told)[0], sample[..., half:]], dim=3),)

    assert flow.held_out_error(system, Twin(), guide) < 1e-12
    config = replace(CONFIG, distill_weight=1.0)
    result = flow.train(config, context(tmp_path / "a", parent), system, guide)
    assert result.metrics["velocity_mse"] > 1e-3


@pytest.mark.slow
def test_the_error_against_the_teacher_may_be_asked_for_where_nothing_is_learned_from_it(parent, tmp_path):
    system = DiffusionSystem.load(parent)
    system.with_unet(velocity_teacher(), system.sampling).save(tmp_path / "teacher")
    alone = replace(CONFIG, distill_weight=0.0)
    for asked in (False, True):
        told = replace(context(tmp_path / str(asked), parent), teacher=tmp_path / "teacher")
        result = flow.run(replace(alone, measure_error=asked), told)
        assert ("velocity_mse" in result.metrics) == asked


@pytest.mark.slow
def test_the_log_has_a_row_for_each_report(parent, tmp_path):
    train(tmp_path / "a", parent, replace(CONFIG, log_every=4))
    (log,) = (tmp_path / "a").rglob("metrics.csv")
    rows = list(csv.DictReader(log.open()))
    assert [row["step"] for row in rows] == ["1", "4", "6"] and all(float(row["loss"]) > 0 for row in rows)


DIES_IN_STEP_4 = (
    "step = flow.FlowStage.step\n"
    "def dies(self, update, generator):\n"
    "    if update == 4: os.kill(os.getpid(), 9)\n"
    "    return step(self, update, generator)\n"
    "flow.FlowStage.step = dies\n"
)
DIES_WHILE_SAVING = "flow.DiffusionSystem.save = lambda *_: os.kill(os.getpid(), 9)\n"


@pytest.mark.slow
@pytest.mark.parametrize("death", [DIES_IN_STEP_4, DIES_WHILE_SAVING], ids=["in a step", "after the last step"])
def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(parent, tmp_path, death):
    whole = train(tmp_path / "whole", parent)
    head = "import os, sys; from pathlib import Path; from tests.stages.test_flow import CONFIG, flow, context\n"
    tail = "flow.run(CONFIG, context(Path(sys.argv[1]), Path(sys.argv[2])))\n"
    folder = tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}

    def attempt(script: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, str(folder), str(parent)]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    assert attempt(head + death + tail).returncode == -9 and (folder / "work" / "last.ckpt").exists()
    again = attempt(head + tail)
    assert again.returncode == 0, again.stderr
    resumed = load_file(folder / "out" / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
