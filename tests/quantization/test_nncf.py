"""NNCF's forms of the student: the same network, smaller files, the errors that their bits allow."""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto
from torch import Tensor

from compress.commands.nncf import checked, measure
from compress.errors import UserError
from compress.progress import LineProgress
from compress.quantization.nncf_backend import FORMS, OpenVinoUNet, write_form
from compress.quantization.parity import sqnr_db
from compress.quantization.qairt import write_float
from compress.quantization.runtime import SessionRunner, cpu_session
from tests.quantization.conftest import Quantized, random_inputs

SMALLEST_DB = {"int8": 30.0, "int4": 8.0, "w8a8": 12.0}


@pytest.fixture(scope="module")
def forms(quantized: Quantized, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """float.onnx and every form of it, calibrated on a few calls."""
    folder = tmp_path_factory.mktemp("nncf")
    write_float(quantized.graph, quantized.encodings, folder / "float.onnx")
    calibration = random_inputs(quantized.spec, 2, seed=1)
    for form in FORMS:
        write_form(folder / "float.onnx", form, calibration, folder / f"{form}.onnx")
    return folder


def answer(folder: Path, form: str, quantized: Quantized) -> Tensor:
    """What the file of a form computes, by its own words."""
    return SessionRunner(cpu_session(folder / f"{form}.onnx", as_written=True))(quantized.inputs)


@pytest.mark.slow
def test_every_form_is_as_near_as_its_bits_allow(quantized: Quantized, forms: Path) -> None:
    expected = quantized.graph(*quantized.inputs.tensors())
    found = {form: sqnr_db(expected, answer(forms, form, quantized)) for form in FORMS}
    assert {form: db for form, db in found.items() if not SMALLEST_DB[form] < db < 80} == {}
    assert found["int8"] > found["int4"] + 6 and found["int8"] > found["w8a8"]


@pytest.mark.slow
def test_the_files_hold_integers(forms: Path) -> None:
    sizes = {form: (forms / f"{form}.onnx").stat().st_size for form in ("float", *FORMS)}
    assert max(sizes["int8"], sizes["w8a8"]) < 0.4 * sizes["float"] and sizes["int4"] < 0.9 * sizes["int8"]
    types = {
        form: {init.data_type for init in onnx.load(forms / f"{form}.onnx").graph.initializer if len(init.dims) > 1}
        for form in FORMS
    }
    assert TensorProto.INT4 in types["int4"]
    assert {TensorProto.INT8, TensorProto.UINT8} & types["int8"] and TensorProto.INT8 in types["w8a8"]
    activations = {
        form: sum(node.op_type == "QuantizeLinear" for node in onnx.load(forms / f"{form}.onnx").graph.node)
        for form in FORMS
    }
    assert activations["int8"] == activations["int4"] == 0 < activations["w8a8"]


@pytest.mark.slow
def test_openvino_computes_the_same(quantized: Quantized, forms: Path) -> None:
    pytest.importorskip("openvino", reason="an extra: pip install openvino")
    # not W8A8: OpenVINO 2026.4 strayed from that file (6 dB, reports/LOG.md), which the command's table shows
    for form in ("float", "int8", "int4"):
        found = OpenVinoUNet(forms / f"{form}.onnx", quantized.spec).forward(quantized.inputs)
        assert sqnr_db(answer(forms, form, quantized), found) > 50, form


def test_an_unknown_form_is_refused(quantized: Quantized, tmp_path: Path) -> None:
    write_float(quantized.graph, quantized.encodings, tmp_path / "float.onnx")
    with pytest.raises(ValueError, match="expected one of int8, int4, w8a8"):
        write_form(tmp_path / "float.onnx", "int2", quantized.inputs, tmp_path / "int2.onnx")


def test_mistakes_on_the_command_line_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        checked(argparse.Namespace(forms="int8,int2", images=3))
    assert [problem.what for problem in raised.value.problems] == ["--forms has 'int2'", "--images is 3"]
    with pytest.raises(UserError, match=r"no quantized/calibration\.safetensors.*80-quantize"):
        measure(tmp_path, ["int8"], 0, tmp_path / "out", LineProgress())
