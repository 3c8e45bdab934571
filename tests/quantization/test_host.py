"""The host's share: what it computes makes the network behind the sinusoids the student itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.quantization.host import PADDED, IoSpec, network_inputs
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


def test_padding_needs_a_network_that_takes_it(spec: IoSpec) -> None:
    with pytest.raises(ValueError, match="text_bias"):
        network_inputs(replace(spec, text_bias=False), torch.ones(2, 4, 8, 8), torch.tensor([0.5, 0.5]), condition(2))


def test_padded_tokens_have_no_say(unet: Any, spec: IoSpec) -> None:
    told = condition(3)
    assert told.mask_bt is not None
    other = replace(told, tokens_btd=torch.where(told.mask_bt[..., None] > 0, told.tokens_btd, torch.randn(3, 32, 32)))
    x_bchw, sigma_b = torch.randn(3, 4, 8, 8), torch.tensor([1.0, 0.5, 0.013])
    made, again = (float_unet(unet, spec).velocity(x_bchw, sigma_b, each) for each in (told, other))
    torch.testing.assert_close(made, again, atol=1e-6, rtol=0)
    unmasked = float_unet(unet, spec).velocity(x_bchw, sigma_b, replace(other, mask_bt=None))
    assert not torch.allclose(made[1:], unmasked[1:], atol=1e-3)  # without the mask they would have


def test_the_bias_is_zero_on_text_and_low_on_padding(spec: IoSpec) -> None:
    inputs = network_inputs(spec, torch.ones(2, 4, 8, 8), torch.tensor([0.5, 0.5]), condition(2))
    assert inputs.text_bias_b1t is not None
    assert inputs.text_bias_b1t.shape == spec.shapes(2)["text_bias"] == (2, 1, 32)
    assert inputs.text_bias_b1t[0].eq(0).all() and inputs.text_bias_b1t[1, 0, 27:].eq(PADDED).all()
    full = network_inputs(spec, torch.ones(2, 4, 8, 8), torch.tensor([0.5, 0.5]), condition(2, padded=False))
    assert full.text_bias_b1t is not None and full.text_bias_b1t.eq(0).all()


def test_the_spec_survives_its_file(spec: IoSpec, tmp_path: Path) -> None:
    spec.save(tmp_path / "io_spec.json")
    assert IoSpec.load(tmp_path / "io_spec.json") == spec
    assert spec.shapes(1)["sample"] == (1, 4, 8, 16)
