"""Recorded trajectories: every call, in order, told apart by step, trajectory and task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from compress.data.calibration import CalibrationSet, record_trajectories
from compress.diffusion.guidance import task_guidance
from compress.diffusion.sampler import sample
from compress.quantization.host import IoSpec
from students.unet import StudentVelocity
from teachers.base import Condition
from tests.quantization.conftest import condition

LEVELS = (1.0, 0.6, 0.2, 0.0)


@pytest.fixture(scope="module")
def told() -> Condition:
    return Condition.cat([condition(2), condition(1, edit=True)])


def recorded(unet: Any, spec: IoSpec, told: Condition, **options: Any) -> CalibrationSet:
    noise_bchw = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    return record_trajectories(StudentVelocity(unet), spec, noise_bchw, told, LEVELS, generator=generator, **options)


def test_every_step_of_every_trajectory(unet: Any, spec: IoSpec, told: Condition) -> None:
    found = recorded(unet, spec, told, stochastic=True)
    assert found.step_n.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert found.trajectory_n.tolist() == [0, 1, 2] * 3
    assert found.edits_n.tolist() == [False, False, True] * 3
    right = found.inputs.sample_bchw[..., 8:]
    assert right.flatten(1).ne(0).any(dim=1).tolist() == found.edits_n.tolist()
    last = found.trajectories([2])
    assert last.step_n.tolist() == [0, 1, 2] and last.edits_n.all()


def test_recording_changes_nothing(unet: Any, spec: IoSpec, told: Condition) -> None:
    first = recorded(unet, spec, told, stochastic=True)
    again = recorded(unet, spec, told, stochastic=True)
    for one, other in zip(first.inputs.tensors(), again.inputs.tensors(), strict=True):
        assert torch.equal(one, other)
    noise_bchw = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    states = []
    with torch.no_grad():
        sample(
            StudentVelocity(unet),
            noise_bchw,
            told,
            LEVELS,
            stochastic=True,
            generator=torch.Generator().manual_seed(1),
            callback=lambda step, sigma, x_bchw, velocity_bchw: states.append(x_bchw),
        )
    assert torch.equal(torch.cat(states), first.inputs.sample_bchw[..., :8])


def test_guidance_branches_belong_to_their_trajectory(unet: Any, spec: IoSpec, told: Condition) -> None:
    guidance = task_guidance(3.0, 2.0, 1.5, condition(1))
    found = recorded(unet, spec, told, guidance=guidance)
    calls = [(found.trajectory_n == row).sum().item() for row in range(3)]
    assert calls == [2 * 3, 2 * 3, 3 * 3]  # two branches to generate, three to edit, at three levels
    assert sorted(set(found.trajectories([2]).step_n.tolist())) == [0, 1, 2]


def test_the_file_holds_everything(unet: Any, spec: IoSpec, told: Condition, tmp_path: Path) -> None:
    found = recorded(unet, spec, told)
    found.save(tmp_path / "calibration.safetensors", held_out=[1, 2])
    again, held_out = CalibrationSet.load(tmp_path / "calibration.safetensors")
    assert held_out == [1, 2]
    assert torch.equal(again.inputs.tokens_btd, found.inputs.tokens_btd)
    assert torch.equal(again.trajectory_n, found.trajectory_n) and torch.equal(again.edits_n, found.edits_n)
