"""Reading QNN's dump of a compiled graph."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress.quantization.residency import dtype_name, nodes_on_htp_percent, read_residency

U16, S16, U8, F32, F16 = 0x0416, 0x0316, 0x0408, 0x0232, 0x0216
TENSORS = {"x": F32, "q": U16, "s": S16, "narrow": U8, "half": F16, "y": F32}
NODES = {
    "in": ("Quantize", ["x"], ["q"]),
    "sign": ("Convert", ["q"], ["s"]),
    "add": ("ElementWiseAdd", ["q", "q"], ["q"]),
    "out": ("Dequantize", ["q"], ["y"]),
}


def dump(path: Path, extra: dict[str, tuple[str, list[str], list[str]]]) -> Path:
    nodes = {
        name: {"type": kind, "input_names": takes, "output_names": gives}
        for name, (kind, takes, gives) in {**NODES, **extra}.items()
    }
    tensors = {name: {"data_type": code} for name, code in TENSORS.items()}
    path.write_text(json.dumps({"graph": {"nodes": nodes, "tensors": tensors}}))
    return path


def test_data_types_in_words() -> None:
    names = {0x0416: "ufixed16", 0x0316: "sfixed16", 0x0308: "sfixed8", 0x0332: "sfixed32", 0x0232: "float32"}
    assert {code: dtype_name(code) for code in names} == names


def test_an_integer_graph(tmp_path: Path) -> None:
    found = read_residency(dump(tmp_path / "graph.json", {}))
    assert (found.nodes, found.float_ops, found.unrequested_converts, found.boundary_ops) == (4, (), (), 2)
    assert found.by_signature["Convert(ufixed16) -> sfixed16"] == 1
    assert found.metrics()["float_ops_count"] == 0


def test_float_operators_and_conversions_to_8_bits_are_named(tmp_path: Path) -> None:
    extra = {"norm": ("LayerNorm", ["half"], ["half"]), "lossy": ("Convert", ["q"], ["narrow"])}
    found = read_residency(dump(tmp_path / "graph.json", extra))
    assert found.float_ops == ("norm",)
    assert found.unrequested_converts == ("lossy",)


def test_share_on_the_htp(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    residency = read_residency(dump(tmp_path / "graph.json", {}))
    nodes = [onnx.helper.make_node("EPContext", [], ["a"]), onnx.helper.make_node("Relu", ["a"], ["b"])]
    for count, percent in ((1, 100.0), (2, 80.0)):
        graph = onnx.helper.make_graph(nodes[:count], "wrapper", [], [])
        onnx.save(onnx.helper.make_model(graph), tmp_path / "wrapper.onnx")
        assert nodes_on_htp_percent(tmp_path / "wrapper.onnx", residency) == percent
