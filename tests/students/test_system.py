"""A checkpoint folder: what is saved is what is loaded, and a missing part is named."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from compress.generate import draw_noise, generate, levels
from students.system import DiffusionSystem, SamplingDefaults
from students.unet import PanelVelocity, StudentVelocity, velocity_model
from tests.stages.test_flow import velocity_teacher
from tests.tiny import SPEC, tiny_system


@pytest.mark.slow
def test_a_folder_loads_to_the_same_system(tmp_path):
    system = tiny_system(sampling=SamplingDefaults(rungs=(1.0, 0.5), stochastic=True))
    system.save(tmp_path)
    once, again = DiffusionSystem.load(tmp_path), DiffusionSystem.load(tmp_path)
    assert once.sampling == system.sampling and levels(once.sampling) == [1.0, 0.5, 0.0]
    once.save(tmp_path / "copy")  # bf16 at rest: a second round trip changes nothing
    copied = DiffusionSystem.load(tmp_path / "copy")
    for name, weight in again.unet.state_dict().items():
        assert torch.equal(weight, copied.unet.state_dict()[name]) and weight.dtype == torch.float32
    prompts = ["[generate] a red circle", "[generate] two squares"]
    assert torch.equal(generate(once, prompts), generate(copied, prompts))


def test_missing_parts_are_named(tmp_path):
    tiny_system().save(tmp_path)
    shutil.rmtree(tmp_path / "vae")
    with pytest.raises(FileNotFoundError, match="vae"):
        DiffusionSystem.load(tmp_path)


def test_a_picture_does_not_depend_on_its_batch():
    system = tiny_system()
    prompts = [f"[generate] {word}" for word in ("a red circle", "two squares", "a blue cross")]
    whole = generate(system, prompts, seed=3)
    parts = generate(system, prompts, seed=3, batch_size=2)
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-5)
    assert torch.equal(draw_noise((2, 2), 1, [4]), draw_noise((2, 2), 1, [3, 4])[1:])


def test_the_student_sees_zeros_where_nothing_is_edited():
    system = tiny_system()
    x_bchw, sigma_b = torch.randn(2, *system.latent_shape), torch.tensor([0.3, 0.9])
    condition = system.encode_text(["[generate] a red circle"] * 2)
    plain = system.denoiser.velocity(x_bchw, sigma_b, condition)
    zeros = system.denoiser.velocity(x_bchw, sigma_b, condition.without_source())
    assert plain.shape == x_bchw.shape and torch.equal(plain, zeros)
    assert isinstance(velocity_model(system.unet), StudentVelocity)


def test_a_student_that_kept_its_pooled_text_is_given_it():
    """As pruning leaves it where the step `size_embedding` is not among its steps."""
    system = tiny_system()
    reading = system.with_unet(replace(SPEC, pooled_dim=32).build().eval())
    condition = system.encode_text(["[generate] a red circle"])
    x_bchw, sigma_b = torch.randn(1, *system.latent_shape), torch.tensor([0.5])
    told = reading.denoiser.velocity(x_bchw, sigma_b, condition)
    other = reading.denoiser.velocity(x_bchw, sigma_b, replace(condition, pooled_bd=-condition.pooled_bd))
    assert told.shape == x_bchw.shape and not torch.equal(told, other)


def test_a_panel_network_refuses_a_source():
    system = tiny_system()
    unet = velocity_teacher()
    teacher = velocity_model(unet)
    assert isinstance(teacher, PanelVelocity)
    condition = system.encode_text(["[generate] a red circle"])
    x_bchw, sigma_b = torch.randn(1, *system.latent_shape), torch.tensor([0.5])
    assert teacher.velocity(x_bchw, sigma_b, condition).shape == x_bchw.shape
    with pytest.raises(ValueError, match="only generates"):
        teacher.velocity(x_bchw, sigma_b, replace(condition, source_bchw=x_bchw))
    with pytest.raises(TypeError, match="Linear"):
        velocity_model(torch.nn.Linear(1, 1))
