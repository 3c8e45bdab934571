"""Slow results are computed once, also by a process that comes after the one that was killed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from compress.quantization.kept import Kept
from compress.quantization.onnx_writer import write_onnx
from compress.quantization.runtime import OnnxUNet
from tests.quantization.conftest import Quantized


def test_a_result_is_made_once(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> torch.Tensor:
        made.append(1)
        return torch.arange(6.0).reshape(2, 3).T  # not contiguous

    assert torch.equal(Kept(tmp_path / "deep" / "er").tensor("a", make), torch.arange(6.0).reshape(2, 3).T)
    assert torch.equal(Kept(tmp_path / "deep" / "er").tensor("a", make), torch.arange(6.0).reshape(2, 3).T)
    Kept(tmp_path / "deep" / "er").tensor("b", make)
    assert len(made) == 2
    assert [Kept(tmp_path / "deep" / "er").has(name) for name in "abc"] == [True, True, False]


def test_infinity_is_kept_too(tmp_path: Path) -> None:
    for _ in range(2):
        assert float(Kept(tmp_path).tensor("x", lambda: torch.tensor(torch.inf, dtype=torch.float64))) == torch.inf


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Kept(tmp_path / "kept").tensor("a", fail)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.slow
def test_a_network_is_not_asked_again(quantized: Quantized, tmp_path: Path) -> None:
    write_onnx(quantized.graph, quantized.encodings, tmp_path / "model.onnx")
    network = OnnxUNet(tmp_path / "model.onnx", quantized.spec)
    expected = network.forward(quantized.inputs)
    network.runner.kept = Kept(tmp_path / "kept")
    assert torch.equal(network.forward(quantized.inputs), expected)
    files = sorted((tmp_path / "kept").iterdir())
    assert len(files) == len(quantized.inputs)
    for file in files:
        save_file({"value": torch.full_like(expected[:1], 7.0)}, file)  # which a computed answer would not be
    assert (network.forward(quantized.inputs) == 7.0).all()
    network.runner.kept = Kept(tmp_path / "another")
    assert torch.equal(network.forward(quantized.inputs), expected)
