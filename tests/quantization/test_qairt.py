"""The files for Qualcomm's converter: every tensor named, AIMET's own numbers, and the simulation from them alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from compress.quantization.graph import output_node
from compress.quantization.host import OUTPUT_NAME
from compress.quantization.parity import sqnr_db
from compress.quantization.qairt import write_qairt
from compress.quantization.runtime import SessionRunner, cpu_session
from tests.quantization.conftest import Quantized


@pytest.fixture(scope="module")
def files(quantized: Quantized, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files") / "qairt"
    write_qairt(quantized.graph, quantized.encodings, folder, "unet")
    return folder


def entries(folder: Path, version: str) -> dict[str, dict[str, Any]]:
    """Tensor -> its entry in one of the two files."""
    written = json.loads((folder / f"unet_encodings_{version}.json").read_text())
    assert written["version"] == version
    if version == "2.0.0":
        return {entry.pop("name"): entry for entry in written["encodings"]}
    return {entry.pop("name"): entry for entry in written["activation_encodings"] + written["param_encodings"]}


def test_the_float_file_is_the_network(quantized: Quantized, files: Path) -> None:
    made = SessionRunner(cpu_session(files / "unet.onnx"))(quantized.inputs)
    assert sqnr_db(quantized.graph(*quantized.inputs.tensors()), made) > 90


def test_every_tensor_of_the_file_has_an_encoding(files: Path) -> None:
    graph = onnx.load(files / "unet.onnx").graph
    tensors = {value.name for value in graph.input} | {name for node in graph.node for name in node.output}
    constants = {init.name for init in graph.initializer if not init.name.endswith(("_shape", "_factors"))}
    biases = {name for name in constants if name.endswith(".bias")}
    assert entries(files, "2.0.0").keys() == tensors | constants
    assert entries(files, "1.0.0").keys() == (tensors | constants) - biases
    assert len(tensors) > 200 and biases
    shapes = {init.name: tuple(init.dims) for init in graph.initializer}
    for name, entry in entries(files, "2.0.0").items():
        scales = np.atleast_1d(entry["y_scale"])
        assert len(scales) == (shapes[name][entry["axis"]] if "axis" in entry else 1), name


def test_the_numbers_are_those_of_the_simulation(quantized: Quantized, files: Path) -> None:
    """Every grid against what AIMET's encoding object writes itself, in both versions."""
    result = output_node(quantized.graph).name
    renamed = {f"{name}_input": name for name in quantized.spec.shapes(1)} | {result: OUTPUT_NAME}
    aimets = {renamed.get(name, name): grid.get_encodings() for name, grid in quantized.simulation.grids.items()}
    for name, parameter, quantizer in quantized.simulation._parameter_quantizers():
        aimets[name] = quantizer.get_encodings()._hint_input_shape(parameter.shape)
    first, second = entries(files, "1.0.0"), entries(files, "2.0.0")
    for name, encoding in aimets.items():
        theirs = encoding.to_qnn_encoding_dict("1.0.0")
        np.testing.assert_allclose(first[name].pop("scale"), theirs.pop("scale"), rtol=1e-6)
        assert first[name] == theirs, name
        theirs = encoding.to_qnn_encoding_dict("2.0.0")
        np.testing.assert_allclose(second[name].pop("y_scale"), theirs.pop("y_scale"), rtol=1e-6)
        assert ("axis" in second[name]) == ("axis" in theirs), name  # which one follows from the file's own layout
        assert {**second[name], "axis": 0} == {**theirs, "axis": 0}, name


def test_biases_are_on_the_grid_of_the_accumulator(quantized: Quantized, files: Path) -> None:
    found = entries(files, "2.0.0")
    source, weight = found["sample"], found["conv_in.weight"]
    bias = found["conv_in.bias"]
    assert bias["output_dtype"] == "int32" and "y_zero_point" not in bias
    np.testing.assert_allclose(bias["y_scale"], source["y_scale"] * np.array(weight["y_scale"]), rtol=1e-6)


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0"])
def test_float_file_and_encodings_alone_are_the_simulation(
    quantized: Quantized, files: Path, version: str, tmp_path: Path
) -> None:
    """What a converter does with the two: quantizers wherever the encodings say, and nowhere else."""
    found = {name: grid_of(entry) for name, entry in entries(files, version).items() if not name.endswith(".bias")}
    model = onnx.load(files / "unet.onnx")
    axes = {name: entry["axis"] for name, entry in entries(files, "2.0.0").items() if "axis" in entry}
    onnx.save(with_quantizers(model, found, axes), tmp_path / "quantized.onnx")
    made = SessionRunner(cpu_session(tmp_path / "quantized.onnx"))(quantized.inputs)
    assert sqnr_db(quantized.simulated, made) >= 65


def grid_of(entry: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point, in the type of the integers, of an entry in either version."""
    if "y_scale" in entry:
        scale, dtype, zero = np.float32(entry["y_scale"]), entry["output_dtype"], entry.get("y_zero_point", 0)
    else:
        scale = np.float32(entry["scale"] if entry["enc_type"] == "PER_CHANNEL" else entry["scale"][0])
        dtype = f"{'int' if entry['is_sym'] else 'uint'}{entry['bw']}"
        zero = 0 if entry["is_sym"] else -entry["offset"][0]
    return np.asarray(scale), np.full(np.shape(scale), zero, dtype=dtype)


def with_quantizers(
    model: onnx.ModelProto, grids: dict[str, tuple[np.ndarray, np.ndarray]], axes: dict[str, int]
) -> onnx.ModelProto:
    """The model with a QuantizeLinear and a DequantizeLinear behind every tensor that `grids` names."""
    graph = model.graph
    outputs = {value.name for value in graph.output}
    behind = {name: f"{name}_dq" for name in grids}
    nodes: list[Any] = []

    def insert(name: str, source: str) -> None:
        scale, zero = grids[name]
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        graph.initializer.append(numpy_helper.from_array(zero, f"{name}_zero"))
        attributes = {"axis": axes[name]} if scale.ndim else {}
        ends = [f"{name}_scale", f"{name}_zero"]
        nodes.append(helper.make_node("QuantizeLinear", [source, *ends], [f"{name}_q"], **attributes))
        target = name if name in outputs else behind[name]
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", *ends], [target], **attributes))

    for value in [*graph.input, *graph.initializer]:
        if value.name in grids:
            insert(value.name, value.name)
    for node in list(graph.node):
        made = node.output[0]
        renamed = [behind.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(renamed)
        source = f"{made}_raw" if made in outputs else made
        node.output[0] = source
        nodes.append(node)
        insert(made, source)
    del graph.node[:]
    graph.node.extend(nodes)
    return model
