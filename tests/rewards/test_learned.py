"""The learned reward: what it looks at and what it does not, its gradient, its file, and that it learns."""

import pytest
import torch

from compress.config.train import TrainConfig
from compress.data.scenes.world import GRID
from compress.rewards.base import Request
from compress.rewards.learned import CELL_CLASSES, LearnedReward, LearnedRewardSpec
from compress.rewards.training import RewardModelConfig, train_reward
from teachers.base import Condition
from tests.tiny import context, tiny_system


@pytest.fixture
def reward():
    torch.manual_seed(0)
    return LearnedReward(LearnedRewardSpec(text_width=16, width=32, layers=1, heads=2)).eval()


@pytest.fixture
def request_of_four():
    source = torch.rand(4, 3, 64, 64) * 2 - 1
    source[2:] = 0
    return Request(Condition(torch.randn(4, 8, 16)), source)


def test_it_says_one_logit_a_picture_and_one_class_a_cell(reward, request_of_four):
    opinion = reward(torch.rand(4, 3, 64, 64), request_of_four)
    assert opinion.logit_b.shape == (4,)
    assert opinion.cells_bgk.shape == (4, GRID * GRID, CELL_CLASSES)


def test_a_cells_feature_comes_from_its_own_surroundings(reward):
    picture = torch.zeros(1, 3, 64, 64)
    changed = picture.clone()
    changed[..., :16, :16] = 1
    difference = (reward.read(changed) - reward.read(picture)).abs().sum(dim=2)[0]
    assert difference.argmax() == 0


def test_without_sources_it_scores_as_with_blank_ones(reward, request_of_four):
    images = torch.rand(4, 3, 64, 64)
    bare = reward.score(images, Request(request_of_four.condition))
    blank = reward.score(images, Request(request_of_four.condition, torch.zeros(4, 3, 64, 64)))
    torch.testing.assert_close(bare, blank)
    mixed = reward.score(images, request_of_four)
    torch.testing.assert_close(mixed[2:], bare[2:])
    assert not torch.isclose(mixed[:2], bare[:2]).any()


def test_gradients_reach_the_pictures_and_match_finite_differences(reward, request_of_four):
    reward = reward.double()
    asked = Request(Condition(request_of_four.condition.tokens_btd.double()), request_of_four.source_b3hw.double())
    images = torch.rand(4, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(images)
    gradient = torch.autograd.grad(reward(images, asked).logit_b.sum(), images)[0]
    with torch.no_grad():
        step = 1e-3
        ahead, behind = (reward(images + sign * step * direction, asked).logit_b.sum() for sign in (1, -1))
    assert (gradient * direction).sum().item() == pytest.approx(((ahead - behind) / (2 * step)).item(), rel=0.05)


def test_a_saved_reward_scores_the_same(reward, request_of_four, tmp_path):
    images = torch.rand(4, 3, 64, 64)
    reward.save(tmp_path / "reward")
    loaded = LearnedReward.load(tmp_path / "reward")
    torch.testing.assert_close(loaded.score(images, request_of_four), reward.score(images, request_of_four))
    assert {file.name for file in (tmp_path / "reward").iterdir()} == {"config.json", "model.safetensors"}


def test_training_is_cached_and_its_curves_come_back(tmp_path):
    system, ctx = tiny_system(), context(tmp_path / "stage")
    config = RewardModelConfig(steps=2, batch_size=4, pool_examples=8, log_every=1, precision="fp32")
    assert isinstance(config, TrainConfig)
    first, curves = train_reward(system, config, ctx)
    second, again = train_reward(system, config, context(tmp_path / "another"))
    assert curves == again and len(curves["reward_model_loss"]) == 2
    assert len(list((tmp_path / "cache").glob("reward-*"))) == 1
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
