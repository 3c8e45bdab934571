"""Distillation's mechanics on the smallest real system: who learns when, what is never touched, exact resumption."""

import json
from dataclasses import replace

import pytest
import torch

from compress.config.post import DistillConfig
from compress.diffusion.few_step import backward_simulation
from compress.stages import distill
from compress.stages.prompts import Prompts
from students.system import DiffusionSystem
from tests.tiny import context, tiny_system

CONFIG = DistillConfig(
    steps=5,
    batch_size=4,
    precision="fp32",
    pool_samples=8,
    paths=6,
    path_steps=4,
    regression_steps=2,
    fake_ratio=2,
    fake_warmup_steps=1,
    warmup_steps=1,
    validate_images=0,
    log_every=1,
    checkpoint_every_s=0,
)


@pytest.fixture
def parent(tmp_path):
    tiny_system().save(tmp_path / "parent")
    return tmp_path / "parent"


@pytest.fixture
def stage(parent, tmp_path):
    ctx = context(tmp_path / "stage", parent)
    system = DiffusionSystem.load(parent)
    prompts = Prompts.open(system, 0.5, CONFIG.pool_samples, ctx.cache, ctx.progress)
    paths = distill.record_paths(CONFIG, ctx, system, prompts)
    stage = distill.DistillStage(CONFIG, ctx.progress, system, prompts, paths)
    optimizers = stage.configure_optimizers()
    stage.optimizers = lambda: optimizers  # no trainer is attached
    stage.manual_backward = lambda loss: loss.backward()
    return stage


def weights(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def same(module, before):
    return all(torch.equal(now, then) for now, then in zip(module.parameters(), before, strict=True))


@pytest.mark.slow
def test_each_update_changes_its_own_network_and_no_other(stage):
    nets = {"student": stage.trained, "fake": stage.fake, "parent": stage._parent()}
    expected = [("student",), ("student",), ("fake",), ("student", "fake"), ("student", "fake")]
    for update, changing in enumerate(expected):
        before = {name: weights(net) for name, net in nets.items()}
        stage.updates = update
        terms = stage.update(torch.Generator().manual_seed(update))
        assert {name for name, net in nets.items() if not same(net, before[name])} == set(changing)
        assert all(torch.isfinite(torch.as_tensor(value)).all() for value in terms.values())


def test_the_first_score_difference_vanishes_without_guidance(stage):
    """Student, fake score and parent are one network at the start: there is nothing to match but the guidance."""
    generator = torch.Generator().manual_seed(0)
    condition = stage.prompts.draw_condition(4, generator)
    noise = torch.randn(4, *stage.system.latent_shape, generator=generator)
    walk = backward_simulation(stage.student, noise, condition, CONFIG.rungs, True, generator)
    plain = stage.score_difference(walk.end_bchw, condition, torch.Generator().manual_seed(1))
    assert plain.abs().max() < 1e-4
    stage.guidance = distill.guidance_of(stage.sampling, stage.system.encode_text([""]))
    assert stage.score_difference(walk.end_bchw, condition, torch.Generator().manual_seed(1)).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("walk_by", ["ode", "stochastic"])
def test_what_is_made_again_with_gradient_is_what_the_walk_recorded(stage, walk_by):
    stage.config = replace(CONFIG, walk=walk_by)
    generator = torch.Generator().manual_seed(0)
    condition = stage.prompts.draw_condition(4, generator)
    noise = torch.randn(4, *stage.system.latent_shape, generator=generator)
    walk = backward_simulation(stage.student, noise, condition, CONFIG.rungs, walk_by == "stochastic", generator)
    for seed in range(3):
        recorded = stage.made(walk, torch.Generator().manual_seed(seed))
        again = stage.made(walk, torch.Generator().manual_seed(seed), condition)
        torch.testing.assert_close(again, recorded, rtol=1e-4, atol=1e-4)
        assert again.requires_grad and not recorded.requires_grad


def test_batches_mix_both_tasks_evenly(stage):
    condition = stage.prompts.draw_condition(8, torch.Generator().manual_seed(0))
    assert condition.edits_b.tolist() == [True] * 4 + [False] * 4


@pytest.mark.slow
def test_the_regression_falls_on_its_own_paths(stage):
    losses = []
    for update in range(12):
        stage.updates = 1
        losses.append(float(stage.update_regression(torch.Generator().manual_seed(update % 3))["loss"]))
    assert sum(losses[-3:]) < sum(losses[:3])


def test_recorded_paths_are_kept_and_the_same_when_recorded_again(stage, parent, tmp_path):
    ctx = context(tmp_path / "other", parent)
    again = distill.record_paths(CONFIG, ctx, DiffusionSystem.load(parent), stage.prompts)
    assert all(torch.equal(again[name], stage.paths[name]) for name in again)
    assert again["path"].shape == (6, 5, 4, 8, 8)
    files = sorted(ctx.work.glob("paths-*"))
    written = [file.stat().st_mtime_ns for file in files]
    distill.record_paths(CONFIG, ctx, DiffusionSystem.load(parent), stage.prompts)
    assert [file.stat().st_mtime_ns for file in files] == written


@pytest.mark.slow
@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, walk="ode", regression_steps=1, regression_weight=0.5)])
def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(config, parent, tmp_path, monkeypatch):
    unbroken = context(tmp_path / "unbroken", parent)
    result = distill.run(config, unbroken)
    killed = context(tmp_path / "killed", parent)
    update = distill.DistillStage.update

    def dying(self, generator):
        if self.updates == 3:
            raise SystemError("killed")
        return update(self, generator)

    monkeypatch.setattr(distill.DistillStage, "update", dying)
    with pytest.raises(SystemError):
        distill.run(config, killed)
    monkeypatch.setattr(distill.DistillStage, "update", update)
    resumed = distill.run(config, killed)
    first, second = (DiffusionSystem.load(ctx.out) for ctx in (unbroken, killed))
    assert same(first.unet, weights(second.unet))
    assert resumed.curves == result.curves


@pytest.mark.slow
def test_the_artefact_says_how_to_walk_and_holds_only_the_student(parent, tmp_path):
    ctx = context(tmp_path / "stage", parent)
    result = distill.run(CONFIG, ctx)
    sampling = json.loads((ctx.out / "sampling.json").read_text())
    assert sampling["rungs"] == [1.0, 0.75, 0.5, 0.25] and sampling["stochastic"]
    assert [sampling[f"guidance_{name}"] for name in ("text", "edit_text", "image")] == [1, 1, 1]
    assert {path.name for path in ctx.out.iterdir()} == {path.name for path in parent.iterdir()}
    assert result.spec["_class_name"] == "DreamLiteUNetModel"
    state = torch.load(ctx.work / "last.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in state} == {"trained", "fake", "_averaged"}  # no parent, no autoencoder


def test_problems_are_all_found_with_a_remedy():
    config = replace(CONFIG, rungs=(0.9, 0.95), walk="euler", regression_steps=9, noise_low=0.99, fake_ratio=0)
    found = {problem.what.split(" ")[0] for problem in config.problems()}
    assert found == {"rungs", "walk", "regression_steps", "noise_low", "fake_ratio"}
    assert CONFIG.problems() == [] and all(problem.remedy.endswith(".") for problem in config.problems())
