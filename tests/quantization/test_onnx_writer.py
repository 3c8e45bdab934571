"""The QDQ file: valid, integer throughout, and the same numbers as AIMET's simulation on onnxruntime's CPU."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from compress.errors import UserError
from compress.quantization import compile_memory
from compress.quantization.onnx_writer import write_onnx
from compress.quantization.parity import sqnr_db
from compress.quantization.runtime import OnnxUNet
from tests.quantization.conftest import Quantized

QDQ = {"QuantizeLinear", "DequantizeLinear"}


@pytest.fixture(scope="module")
def path(quantized: Quantized, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(quantized.graph, quantized.encodings, path)  # runs onnx.checker with full_check
    return path


def test_the_file_agrees_with_the_simulation(quantized: Quantized, path: Path) -> None:
    made = OnnxUNet(path, quantized.spec).forward(quantized.inputs)
    assert sqnr_db(quantized.simulated, made) >= 65


def test_every_operator_lies_between_grids(path: Path) -> None:
    graph = onnx.load(path).graph
    producer = {output: node for node in graph.node for output in node.output}
    consumers: dict[str, list] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    integer_inputs = {"Reshape": (1,), "Resize": (1, 2)}  # a shape, and factors: no tensors of the network
    for node in graph.node:
        if node.op_type in QDQ:
            continue
        for position, name in enumerate(node.input):
            if position not in integer_inputs.get(node.op_type, ()):
                assert producer[name].op_type == "DequantizeLinear", (node.name, name)
        assert [user.op_type for user in consumers[node.output[0]]] == ["QuantizeLinear"], node.name


def test_weights_are_integers_and_nothing_is_left_over(path: Path) -> None:
    graph = onnx.load(path).graph
    used = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= used
    for tensor in graph.initializer:
        if tensor.name.endswith(".weight_q"):
            assert numpy_helper.to_array(tensor).dtype.kind in "iu"
        if tensor.name.endswith(".bias_q"):
            assert numpy_helper.to_array(tensor).dtype == "int32"
    floats = [tensor for tensor in graph.initializer if numpy_helper.to_array(tensor).dtype.kind == "f"]
    assert all(tensor.name.endswith(("_scale", "_factors")) for tensor in floats)


def test_the_operators_are_those_with_a_16_bit_form(path: Path) -> None:
    kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert not kinds.keys() & {"GroupNormalization", "Erf", "Split", "Identity", "Cast", "Div", "Pow", "Expand"}
    assert {"RMSNormalization", "LayerNormalization", "InstanceNormalization", "Gelu", "Gemm", "MatMul"} <= kinds.keys()


def test_a_batch_is_fixed_in_the_file(quantized: Quantized, tmp_path: Path) -> None:
    write_onnx(quantized.graph, quantized.encodings, tmp_path / "two.onnx", batch=2)
    (sample, *_) = onnx.load(tmp_path / "two.onnx").graph.input
    assert [dim.dim_value for dim in sample.type.tensor_type.shape.dim] == [2, 4, 8, 16]


def test_the_file_says_what_the_compiler_will_hold(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = compile_memory.load_of(path)
    assert load is not None
    assert 0.7 < load.weight_bytes / path.stat().st_size < 1  # the rest of a file this small are its nodes
    sample = 4 * 8 * 16 * 2
    assert load.activation_bytes > 100 * sample and load.activation_bytes % 2 == 0
    assert compile_memory.check_memory(path) == load.peak_gb()
    monkeypatch.setattr(compile_memory, "PER_WEIGHT", 1e9)
    with pytest.raises(UserError, match="Compile on a larger machine"):
        compile_memory.check_memory(path)
