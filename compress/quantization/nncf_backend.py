"""NNCF beside AIMET: the same student on the same calibration data, for CPUs and NPUs that OpenVINO runs on.

Works on the float ONNX file and leaves ONNX files, which onnxruntime runs anywhere and OpenVINO reads as they are.
Three forms: "int8" and "int4" are weights alone (activations stay float), "w8a8" is weights and activations. NNCF and
OpenVINO are heavy, and are imported inside the functions that need them.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.nncf_quiet import quiet_nncf
from compress.quantization.host import OUTPUT_NAME, HostDenoiser, Inputs, IoSpec

FORMS = ("int8", "int4", "w8a8")
GROUP_SIZE = 32  # weights that share a 4-bit scale; the lattice that widths of students lie on


def write_form(source: Path, form: str, calibration: Inputs, path: Path) -> None:
    """Writes `path`, the float ONNX file `source` in one of FORMS. `calibration` are calls of it, batch-first."""
    import onnx

    if form not in FORMS:
        raise ValueError(f"form is {form!r}, expected one of {', '.join(FORMS)}")
    calls = [_arrays(calibration[row : row + 1]) for row in range(len(calibration))]
    with quiet_nncf() as nncf:
        made = _converted(nncf, onnx.load(source), form, calls)
    _mend(made)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, path)


def _converted(nncf: ModuleType, model: Any, form: str, calls: list[Any]) -> Any:
    dataset = nncf.Dataset(calls)
    if form == "w8a8":
        return nncf.quantize(
            model,
            dataset,
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(calls),
        )
    if form == "int4":
        return nncf.compress_weights(
            model,
            mode=nncf.CompressWeightsMode.INT4_SYM,
            group_size=GROUP_SIZE,
            ratio=1.0,
            dataset=dataset,
            scale_estimation=True,
            subset_size=len(calls),
            advanced_parameters=nncf.AdvancedCompressionParameters(
                group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST
            ),
        )
    return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)


def _mend(model: Any) -> None:
    """Puts right, in place, what onnxruntime refuses of the weights that NNCF 3.4 has compressed in ONNX.

    A convolution's scales have to be a vector, not (o, 1, 1); and groups run along the axis that the scales are shorter
    in, which for a Gemm with a transposed weight is not the first.
    """
    from onnx import helper

    constants = {constant.name: constant for constant in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        weight, *grid = (constants[name] for name in node.input)
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if block := attributes.get("block_size", 0):
            lengths = zip(weight.dims, grid[0].dims, strict=True)
            attributes["axis"] = next(axis for axis, (long, short) in enumerate(lengths) if long == block * short)
        elif len(grid[0].dims) > 1:
            for constant in grid:
                count = math.prod(constant.dims)
                del constant.dims[:]
                constant.dims.append(count)
        del node.attribute[:]
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())


def _arrays(inputs: Inputs) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(tensor) for name, tensor in inputs.named().items()}


def has_openvino() -> bool:
    """Whether OpenVINO can be imported: it is an extra, and has no wheels for some platforms."""
    return importlib.util.find_spec("openvino") is not None


class OpenVinoUNet(HostDenoiser):
    """An ONNX file on OpenVINO's CPU device, computed as it is written: float32 wherever it is not quantized."""

    def __init__(self, model: Path, spec: IoSpec) -> None:
        import openvino

        core = openvino.Core()
        # by default it may take bf16, and round activations to 8 bit before compressed weights
        exactly = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
        self.compiled = core.compile_model(core.read_model(model), "CPU", exactly)
        super().__init__(spec, self._run)

    def _run(self, inputs: Inputs) -> Tensor:
        rows = []
        for row in range(len(inputs)):
            result = self.compiled(_arrays(inputs[row : row + 1]))[OUTPUT_NAME]
            rows.append(torch.from_numpy(np.array(result)))
        return torch.cat(rows)
