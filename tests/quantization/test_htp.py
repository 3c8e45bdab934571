"""The HTP compiler and emulator: what is refused, and one small network compiled and run."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from compress.errors import UserError
from compress.quantization import htp
from compress.quantization.aimet import Simulation
from compress.quantization.graph import behind_sinusoids
from compress.quantization.htp import HtpTarget
from compress.quantization.htp_context import compile_context, compile_shared
from compress.quantization.onnx_writer import write_onnx
from compress.quantization.parity import sqnr_db
from compress.quantization.passes import htp_graph
from compress.quantization.residency import nodes_on_htp_percent, read_residency
from compress.quantization.rules import load_rules
from compress.quantization.runtime import EmulatedUNet
from tests.quantization.conftest import Quantized, random_inputs


def test_the_default_is_snapdragon_8_gen_3() -> None:
    target = HtpTarget()
    assert (target.soc, target.arch) == ("sm8650", 75)
    assert target.provider_options()["htp_graph_finalization_optimization_mode"] == "3"


def test_the_mode_that_computes_wrong_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="mode 1 computes wrong results"):
        HtpTarget(optimization_mode=1)


def test_an_unknown_chip_is_refused() -> None:
    with pytest.raises(UserError, match=r"soc_model is 30.*57 \(sm8650, V75\)"):
        HtpTarget(soc_model=30)


def test_without_the_wheel_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_qnn", None)
    htp.qnn_provider.cache_clear()
    try:
        with pytest.raises(UserError, match=r"onnxruntime-qnn cannot be imported.*pip install onnxruntime-qnn"):
            htp.qnn_provider()
    finally:
        htp.qnn_provider.cache_clear()


@pytest.mark.slow
def test_compiled_and_emulated(quantized: Quantized, tmp_path: Path) -> None:
    """The binary is the simulation, in integers from end to end, wholly on the HTP."""
    pytest.importorskip("onnxruntime_qnn", reason="the wheel does not exist for this platform")
    write_onnx(quantized.graph, quantized.encodings, tmp_path / "model.onnx")
    compiled = compile_context(tmp_path / "model.onnx", tmp_path, HtpTarget())
    assert compiled.binary.name.startswith("unet_sm8650_") and compiled.binary.stat().st_size > 1e6
    assert compiled.wrapper.stem == compiled.binary.stem
    residency = read_residency(compiled.graph_json)
    assert residency.float_ops == () and residency.unrequested_converts == ()
    assert residency.boundary_ops == 6  # five inputs, text padding among them, and the output
    assert nodes_on_htp_percent(compiled.wrapper, residency) == 100.0

    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in (compiled.binary, compiled.wrapper):
        file.rename(moved / file.name)
    emulated = EmulatedUNet(moved / compiled.wrapper.name, quantized.spec, sessions=2).forward(quantized.inputs)
    assert sqnr_db(quantized.simulated, emulated) >= 55


@pytest.mark.slow
def test_a_network_of_large_maps_compiled_and_emulated(quantized: Quantized, tmp_path: Path) -> None:
    """Its first stage is above LEAST_MAP, the others below: both forms of norms and SiLU in one binary."""
    pytest.importorskip("onnxruntime_qnn", reason="the wheel does not exist for this platform")
    spec = replace(quantized.spec, latent_chw=(4, 16, 32))
    simulation = Simulation(htp_graph(quantized.unet, spec), load_rules(75))
    inputs = random_inputs(spec, 2, seed=1)
    expected = behind_sinusoids(quantized.unet)(*inputs.tensors())
    torch.testing.assert_close(simulation.float_graph(*inputs.tensors()), expected, atol=1e-5, rtol=0)
    simulation.calibrate(inputs, headroom_ratio=1.1)
    write_onnx(simulation.float_graph, simulation.encodings(), tmp_path / "model.onnx")
    compiled = compile_context(tmp_path / "model.onnx", tmp_path, HtpTarget())
    residency = read_residency(compiled.graph_json)
    assert residency.float_ops == residency.unrequested_converts == ()
    assert sqnr_db(simulation(inputs[:1]), EmulatedUNet(compiled.wrapper, spec).forward(inputs[:1])) >= 55


@pytest.mark.slow
def test_a_node_without_an_htp_form_stops_the_compiler(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_qnn", reason="the wheel does not exist for this platform")
    from onnx import TensorProto, helper, save

    ends = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Erf", ["x"], ["y"])], "erf", ends[:1], ends[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path / "erf.onnx")
    with pytest.raises(RuntimeError, match=r"the HTP compiler ended with 1 on erf\.onnx"):
        compile_context(tmp_path / "erf.onnx", tmp_path, HtpTarget())


@pytest.mark.slow
def test_two_resolutions_share_their_weights_in_one_binary(quantized: Quantized, tmp_path: Path) -> None:
    """The binary is little larger than one network's, and has for either the graph of a binary of its own."""
    pytest.importorskip("onnxruntime_qnn", reason="the wheel does not exist for this platform")
    # Both below LEAST_MAP: the same operators, with the same names
    large = replace(quantized.spec, latent_chw=(4, 16, 24))
    graphs = {"unet_64px": quantized.graph, "unet_128px": htp_graph(quantized.unet, large)}
    models = {name: tmp_path / f"{name}.onnx" for name in graphs}
    for name, graph in graphs.items():
        write_onnx(graph, quantized.encodings, models[name])
    together = compile_shared(models, tmp_path, HtpTarget())
    assert len({compiled.binary for compiled in together.values()}) == 1
    alone = compile_context(models["unet_64px"], tmp_path, HtpTarget(), name="alone")
    assert alone.binary.stat().st_size < together["unet_64px"].binary.stat().st_size < 1.5 * alone.binary.stat().st_size
    for compiled in together.values():
        shared = read_residency(compiled.graph_json)
        assert shared.float_ops == shared.unrequested_converts == ()
        assert nodes_on_htp_percent(compiled.wrapper, shared) == 100.0
        with pytest.raises(UserError, match="Emulate a binary that was compiled for this network alone"):
            EmulatedUNet(compiled.wrapper, quantized.spec)
    assert read_residency(together["unet_64px"].graph_json) == read_residency(alone.graph_json)
