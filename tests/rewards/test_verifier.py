"""The exact judge as a reward: right pictures score 1, near misses 0, and meanings are required."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from compress.data.scenes.captions import sample_t2i
from compress.data.scenes.edits import sample_edit
from compress.data.scenes.world import render
from compress.rewards.base import Request, Reward
from compress.rewards.verifier import VerifierReward
from students.system import to_tensor
from teachers.base import Condition


def request(meanings, sources=None):
    source_b3hw = None if sources is None else to_tensor(render(sources))
    return Request(Condition(torch.zeros(len(meanings), 1, 1)), source_b3hw, meanings)


def score(scenes, asked):
    return VerifierReward().score(to_tensor(render(scenes)), asked).tolist()


def test_it_is_a_reward_without_gradient():
    reward: Reward = VerifierReward()
    assert not reward.differentiable


def test_generation_is_judged_by_the_prompt():
    samples = [sample_t2i(np.random.default_rng(seed)) for seed in range(12)]
    asked = request([sample.prompt for sample in samples])
    assert score([sample.scene for sample in samples], asked) == [1] * 12
    assert score([replace(sample.scene, things=()) for sample in samples], asked) == [0] * 12


def test_editing_is_judged_against_the_source():
    samples = [sample_edit(np.random.default_rng(seed)) for seed in range(12)]
    asked = request([sample.instruction for sample in samples], [sample.source for sample in samples])
    assert score([sample.target for sample in samples], asked) == [1] * 12
    assert score([sample.source for sample in samples], asked) == [0] * 12


def test_missing_meanings_or_sources_are_said():
    sample = sample_edit(np.random.default_rng(0))
    with pytest.raises(ValueError, match="1 pictures but 0 meanings"):
        score([sample.target], request([]))
    with pytest.raises(ValueError, match="no source picture"):
        score([sample.target], request([sample.instruction]))
