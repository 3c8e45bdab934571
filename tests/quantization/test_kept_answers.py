"""What the emulator has answered is not asked again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from compress.kept import Kept
from compress.quantization.onnx_writer import write_onnx
from compress.quantization.runtime import OnnxUNet
from tests.quantization.conftest import Quantized


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
