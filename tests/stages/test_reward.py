"""Reward fine-tuning's mechanics on the smallest real system: truncation, anchor, the judge, and exact resumption."""

from dataclasses import replace

import pytest
import torch

from compress.config.post import RewardConfig
from compress.rewards.learned import LearnedReward, LearnedRewardSpec
from compress.stages import reward
from compress.stages.prompts import Prompts
from students.system import DiffusionSystem
from tests.tiny import context, tiny_system

CONFIG = RewardConfig(
    steps=3,
    batch_size=4,
    precision="fp32",
    pool_samples=8,
    sampler_steps=3,
    model_steps=2,
    model_batch_size=4,
    model_pictures=8,
    model_specs=8,
    judge_every=3,
    judge_images=7,
    warmup_steps=1,
    log_every=1,
    checkpoint_every_s=0,
)


@pytest.fixture
def parent(tmp_path):
    tiny_system().save(tmp_path / "parent")
    return tmp_path / "parent"


def make_stage(config, parent, tmp_path):
    ctx = context(tmp_path / "stage", parent)
    system = DiffusionSystem.load(parent)
    prompts = Prompts.open(system, 0.5, config.pool_samples, ctx.cache, ctx.progress)
    learned = LearnedReward(LearnedRewardSpec(text_width=32, width=32))
    return reward.RewardStage(config, ctx.progress, system, prompts, learned)


@pytest.mark.slow
def test_gradient_flows_through_the_one_step_that_leaves_the_window(parent, tmp_path, monkeypatch):
    stage = make_stage(replace(CONFIG, sampler_steps=6, window=(0.5, 0.95)), parent, tmp_path)
    seen, step_to = [], reward.step_to

    def watching(x, velocity, sigma, sigma_next):
        seen.append((sigma, sigma_next, velocity.requires_grad))
        return step_to(x, velocity, sigma, sigma_next)

    monkeypatch.setattr(reward, "step_to", watching)
    stops = set()
    for seed in range(8):
        seen.clear()
        generator = torch.Generator().manual_seed(seed)
        condition = stage.prompts.draw_condition(4, generator)
        z_bchw = stage.roll_out(torch.randn(4, 4, 8, 8), condition, generator)
        assert z_bchw.requires_grad and [tracked for *_, tracked in seen] == [False] * (len(seen) - 1) + [True]
        assert seen[0][0] == 1.0 and seen[-1][1] == 0.0
        stops.add(seen[-1][0])
    assert len(stops) > 1 and all(0.5 <= stop <= 0.95 for stop in stops)


def test_gradient_may_flow_through_all_steps_that_are_left(parent, tmp_path, monkeypatch):
    config = replace(CONFIG, sampler_steps=6, window=(0.5, 0.95), finish="sampler")
    stage = make_stage(config, parent, tmp_path)
    seen = []
    step_to = reward.step_to

    def watched(x, velocity, sigma, sigma_next):
        seen.append((sigma, sigma_next, velocity.requires_grad))
        return step_to(x, velocity, sigma, sigma_next)

    monkeypatch.setattr(reward, "step_to", watched)
    generator = torch.Generator().manual_seed(0)
    stage.roll_out(torch.randn(4, 4, 8, 8), stage.prompts.draw_condition(4, generator), generator)
    assert [sigma for sigma, _, _ in seen] + [0.0] == reward.sigmas(6, stage.system.sampling.shift)
    tracked = [carries for *_, carries in seen]
    first = tracked.index(True)
    assert 0.5 <= seen[first][0] <= 0.95 and tracked == [False] * first + [True] * (6 - first)


def test_a_window_between_two_levels_takes_the_nearer_one():
    assert reward.stops_of([1.0, 0.9, 0.5, 0.0], (0.85, 0.95)) == [1]
    assert reward.stops_of([1.0, 0.9, 0.5, 0.0], (0.4, 1.0)) == [0, 1, 2]
    assert reward.stops_of([1.0, 0.9, 0.5, 0.0], (0.55, 0.6)) == [2]


def test_the_anchor_is_zero_at_the_parent_and_grows_away_from_it(parent, tmp_path):
    stage = make_stage(CONFIG, parent, tmp_path)
    condition = stage.prompts.draw_condition(4, torch.Generator().manual_seed(0))
    z = torch.randn(4, 4, 8, 8)
    assert stage.anchor(z, condition, torch.Generator().manual_seed(1)).tolist() == [0, 0, 0, 0]
    with torch.no_grad():
        for parameter in stage.trained.parameters():
            parameter.add_(0.01)
    assert (stage.anchor(z, condition, torch.Generator().manual_seed(1)) > 0).all()


@pytest.mark.slow
def test_a_step_teaches_the_student_and_neither_parent_nor_reward(parent, tmp_path):
    stage = make_stage(CONFIG, parent, tmp_path)
    result = stage.step(0, torch.Generator().manual_seed(0))
    result.loss.backward()
    assert sum(float(p.grad.abs().sum()) for p in stage.trained.parameters() if p.grad is not None) > 0
    for guest in (stage._parent(), stage.reward, stage.system.vae):
        assert all(p.grad is None and not p.requires_grad for p in guest.parameters())
    assert {"reward_t2i", "reward_edit", "loss_reward", "loss_anchor"} == set(result.terms)
    assert {name.split(".")[0] for name in stage.state_dict()} == {"trained", "_averaged"}


def test_generation_rows_are_scored_without_a_source(parent, tmp_path):
    stage = make_stage(CONFIG, parent, tmp_path)
    asked = stage.request(stage.prompts.draw_condition(4, torch.Generator().manual_seed(0)))
    assert asked.edits_b.tolist() == [True, True, False, False]
    assert not asked.source_b3hw[2:].any()


def test_samples_beyond_the_threshold_are_left_alone(parent, tmp_path):
    stage = make_stage(replace(CONFIG, threshold=-1e6), parent, tmp_path)
    result = stage.step(0, torch.Generator().manual_seed(0))
    assert float(result.terms["loss_reward"]) == 0


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(parent, tmp_path, monkeypatch):
    unbroken = context(tmp_path / "unbroken", parent)
    result = reward.run(CONFIG, unbroken)
    killed = context(tmp_path / "killed", parent)
    step = reward.RewardStage.step

    def dying(self, update, generator):
        if update == 2:
            raise SystemError("killed")
        return step(self, update, generator)

    monkeypatch.setattr(reward.RewardStage, "step", dying)
    with pytest.raises(SystemError):
        reward.run(CONFIG, killed)
    monkeypatch.setattr(reward.RewardStage, "step", step)
    resumed = reward.run(CONFIG, killed)
    first, second = (DiffusionSystem.load(ctx.out) for ctx in (unbroken, killed))
    for one, other in zip(first.unet.parameters(), second.unet.parameters(), strict=True):
        assert torch.equal(one, other)
    assert resumed.curves == result.curves


@pytest.mark.slow
def test_the_judge_stands_beside_the_reward_before_and_after(parent, tmp_path):
    result = reward.run(CONFIG, context(tmp_path / "stage", parent))
    for name in ("t2i", "edit", "overall", "judged_reward_t2i", "judged_reward_edit"):
        assert [step for step, _ in result.curves[name]] == [0, 3]
        assert f"quick_{name}_before" in result.metrics and f"quick_{name}" in result.metrics
    assert 0 <= result.metrics["quick_overall"] <= 1


def test_problems_are_all_found_with_a_remedy():
    config = replace(CONFIG, window=(0.9, 0.6), hinge="up", anchor_weight=-1, model_pictures=2)
    found = {problem.what.split(" ")[0] for problem in config.problems()}
    assert found == {"window", "hinge", "anchor_weight", "model_pictures"}
    assert CONFIG.problems() == []
