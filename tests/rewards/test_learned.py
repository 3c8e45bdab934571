"""The learned reward: what it looks at and what it does not, its gradient, its file, and that it learns."""

import pytest
import torch

from compress.config.train import TrainConfig
from compress.data.scenes.world import GRID
from compress.rewards.base import Request
from compress.rewards.judge import BROKEN, CELL_CLASSES
from compress.rewards.learned import LearnedReward, LearnedRewardSpec
from compress.rewards.training import RewardModelConfig, soften, train_reward
from teachers.base import Condition
from tests.tiny import context, tiny_system


@pytest.fixture
def reward():
    torch.manual_seed(0)
    return LearnedReward(LearnedRewardSpec(text_width=16, width=32)).eval()


@pytest.fixture
def request_of_four():
    source = torch.rand(4, 3, 64, 64) * 2 - 1
    source[2:] = 0
    return Request(Condition(torch.randn(4, 8, 16)), source)


def test_it_sees_one_class_a_cell_and_one_background_a_picture(reward):
    look = reward.look(torch.rand(4, 3, 64, 64))
    assert look.cells_bgk.shape == (4, GRID * GRID, CELL_CLASSES)
    torch.testing.assert_close(look.cells_bgk.sum(dim=2), torch.ones(4, GRID * GRID))
    torch.testing.assert_close(look.background_bk.sum(dim=1), torch.ones(4))


def test_a_cells_classes_come_from_its_own_pixels(reward):
    images = torch.randn(1, 3, 64, 64, requires_grad=True)
    cell = GRID + 2  # row 1, column 2
    gradient = torch.autograd.grad(reward.read(images)[0][0, cell].pow(2).sum(), images)[0]
    share_gg = gradient.abs().sum(dim=1).reshape(GRID, 16, GRID, 16).mean(dim=(1, 3))
    assert share_gg.flatten().argmax() == cell


def test_doubt_keeps_the_class_and_blanks_what_is_no_source():
    cells_bg = torch.randint(2, CELL_CLASSES, (64, GRID * GRID))
    cells_bg[:32] = -1
    background_b = torch.randint(4, (64,))
    background_b[:32] = -1
    look = soften(cells_bg, background_b, torch.Generator().manual_seed(0))
    assert not look.cells_bgk[:32].any() and not look.background_bk[:32].any()
    assert torch.equal(look.cells_bgk[32:].argmax(dim=2), cells_bg[32:])
    assert torch.equal(look.background_bk[32:].argmax(dim=1), background_b[32:])
    torch.testing.assert_close(look.cells_bgk[32:].sum(dim=2), torch.ones(32, GRID * GRID))


def test_broken_cells_are_half_the_time_two_things_at_once():
    look = soften(
        torch.full((200, GRID * GRID), BROKEN), torch.zeros(200, dtype=torch.long), torch.Generator().manual_seed(0)
    )
    torn = look.cells_bgk[..., BROKEN] < 0.5
    assert 0.45 < torn.float().mean() < 0.55


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
    gradient = torch.autograd.grad(reward.score(images, asked).sum(), images)[0]
    with torch.no_grad():
        step = 1e-4
        ahead, behind = (reward.score(images + sign * step * direction, asked).sum() for sign in (1, -1))
    assert (gradient * direction).sum().item() == pytest.approx(((ahead - behind) / (2 * step)).item(), rel=0.05)


def test_a_saved_reward_scores_the_same(reward, request_of_four, tmp_path):
    images = torch.rand(4, 3, 64, 64)
    reward.save(tmp_path / "reward")
    loaded = LearnedReward.load(tmp_path / "reward")
    torch.testing.assert_close(loaded.score(images, request_of_four), reward.score(images, request_of_four))
    assert {file.name for file in (tmp_path / "reward").iterdir()} == {"config.json", "model.safetensors"}


def test_training_is_cached_and_its_curves_come_back(tmp_path):
    system, ctx = tiny_system(), context(tmp_path / "stage")
    config = RewardModelConfig(steps=2, batch_size=4, pictures=8, specs=8, log_every=1, precision="fp32")
    assert isinstance(config, TrainConfig)
    first, curves = train_reward(system, config, ctx)
    second, again = train_reward(system, config, context(tmp_path / "another"))
    assert curves == again and len(curves["reward_model_loss"]) == 2
    assert len(list((tmp_path / "cache").glob("reward-*"))) == 1
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
