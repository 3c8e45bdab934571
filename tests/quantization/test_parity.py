"""Signal to noise by hand, and along a trajectory."""

from __future__ import annotations

import math

import pytest
import torch

from compress.quantization.host import HostDenoiser, IoSpec, NetworkInputs
from compress.quantization.parity import answers, sqnr_db, trajectory_parity


def test_a_tensor_against_itself_is_infinitely_good() -> None:
    x = torch.randn(3, 4)
    assert sqnr_db(x, x) == math.inf


def test_a_tenth_of_the_amplitude_is_twenty_db() -> None:
    x = torch.randn(100)
    assert sqnr_db(x, 1.1 * x) == pytest.approx(20, abs=1e-4)
    assert sqnr_db(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.5])) == pytest.approx(10 * math.log10(25 / 0.25))


def test_noise_on_nothing_is_infinitely_bad() -> None:
    assert sqnr_db(torch.zeros(2), torch.ones(2)) == -math.inf


@pytest.mark.parametrize("pair, columns", [(True, 8), (False, 16)])
def test_answers_are_the_targets_panel_of_a_pair_and_all_of_a_single_one(pair: bool, columns: int) -> None:
    spec = IoSpec((4, 8, 16), 64, 0, (5, 32), 4, True, 0.0, pair=pair)
    inputs = NetworkInputs(torch.randn(2, 4, 8, 16), torch.zeros(2, 64), None, torch.zeros(2, 5, 32))
    found = answers({"same": HostDenoiser(spec, lambda given: given.sample_bchw)}, inputs)["same"]
    assert torch.equal(found, inputs.sample_bchw[..., :columns])


def test_by_step() -> None:
    reference = torch.ones(4, 1, 1, 1)
    other = torch.tensor([1.1, 1.01, 1.1, 1.01]).reshape(4, 1, 1, 1)
    parity = trajectory_parity(reference, other, torch.tensor([0, 1, 0, 1]))
    assert parity.by_step_db == pytest.approx((20, 40), abs=1e-3)
    assert parity.overall_db == pytest.approx(10 * math.log10(4 / (0.02 + 0.0002)), abs=1e-3)
