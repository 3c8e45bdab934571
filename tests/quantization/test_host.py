"""The host's share: what it computes makes the network behind the sinusoids the student itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from compress.quantization.host import IoSpec, network_inputs
from compress.quantization.runtime import float_unet
from students.unet import StudentVelocity
from tests.quantization.conftest import condition


@pytest.mark.parametrize("edit", [False, True])
def test_host_and_network_together_are_the_student(unet: Any, spec: IoSpec, edit: bool) -> None:
    x_bchw, sigma_b, told = torch.randn(3, 4, 8, 8), torch.tensor([1.0, 0.5, 0.013]), condition(3, edit)
    expected = StudentVelocity(unet).velocity(x_bchw, sigma_b, told)
    made = float_unet(unet, spec).velocity(x_bchw, sigma_b, told)
    assert made.shape == x_bchw.shape
    torch.testing.assert_close(made, expected, atol=1e-6, rtol=0)


def test_a_generation_has_zeros_on_the_right(spec: IoSpec) -> None:
    inputs = network_inputs(spec, torch.ones(1, 4, 8, 8), torch.tensor([0.5]), condition(1))
    assert inputs.sample_bchw[..., :8].eq(1).all() and inputs.sample_bchw[..., 8:].eq(0).all()


def test_a_padding_mask_is_refused(spec: IoSpec) -> None:
    from dataclasses import replace

    masked = replace(condition(1), mask_bt=torch.tensor([[1.0] * 31 + [0.0]]))
    with pytest.raises(ValueError, match="padding mask"):
        network_inputs(spec, torch.ones(1, 4, 8, 8), torch.tensor([0.5]), masked)


def test_the_spec_survives_its_file(spec: IoSpec, tmp_path: Path) -> None:
    spec.save(tmp_path / "io_spec.json")
    assert IoSpec.load(tmp_path / "io_spec.json") == spec
    assert spec.shapes(1)["sample"] == (1, 4, 8, 16)
