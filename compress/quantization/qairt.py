"""For Qualcomm's QAIRT converter: the network as float ONNX, and AIMET's encodings of every tensor in that file.

The converter takes the grids from a JSON file (`--quantization_overrides`) and quantizes the float file by itself. A
tensor that the file does not name falls to float, or to a grid of the converter's own, so none is left out: in version
2.0.0 of the format the int32 biases are named too; in 1.0.0 the converter derives them. The converter is not on any
package index and has not been run on these files; onnxruntime has, with quantizers where the encodings say
(tests/quantization/test_qairt.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import fx

from compress.quantization.graph import output_node
from compress.quantization.grids import Encoding, Encodings
from compress.quantization.host import OUTPUT_NAME
from compress.quantization.onnx_writer import Writer

FOLDER = "qairt"  # in quantized/
PROTOBUF_LIMIT_BYTES = 1_900_000_000  # an ONNX file cannot exceed 2 GiB; beyond, weights lie beside it


def write_qairt(
    graph_module: fx.GraphModule, encodings: Encodings, folder: Path, name: str, output: str = OUTPUT_NAME
) -> None:
    """Writes <name>.onnx in float32, <name>_encodings_1.0.0.json and <name>_encodings_2.0.0.json into `folder`."""
    folder.mkdir(exist_ok=True)
    writer = write_float(graph_module, encodings, folder / f"{name}.onnx", output)
    parameters = {tensor: encoding for tensor, (encoding, _) in writer.parameters.items()}
    Encodings(writer.tensors, parameters).save(folder / f"{name}_encodings_1.0.0.json")
    entries = [encoding.as_aimet_2(tensor) for tensor, encoding in writer.tensors.items()]
    entries += [encoding.as_aimet_2(tensor, axis) for tensor, (encoding, axis) in writer.parameters.items()]
    entries += [encoding.as_aimet_2(tensor, 0) for tensor, encoding in writer.biases.items()]
    (folder / f"{name}_encodings_2.0.0.json").write_text(json.dumps({"version": "2.0.0", "encodings": entries}))


def write_float(
    graph_module: fx.GraphModule, encodings: Encodings, path: Path, output: str = OUTPUT_NAME
) -> FloatWriter:
    """Writes the network in float32 for batch 1, checked by onnx.checker; returns what noted its grids on the way."""
    import onnx

    writer = FloatWriter(graph_module, encodings, 1, output)
    model = writer.model()
    onnx.save(model, path, save_as_external_data=model.ByteSize() > PROTOBUF_LIMIT_BYTES, location=f"{path.name}.data")
    onnx.checker.check_model(path, full_check=True)
    return writer


class FloatWriter(Writer):
    """The same operators in float, with the grid of every tensor noted by its name in the file.

    Where the quantized file has a second pair of quantizers, to change the grid, this one has an Identity: the tensor
    behind it is the same and has another grid.
    """

    def __init__(self, graph_module: fx.GraphModule, encodings: Encodings, batch: int, output: str) -> None:
        super().__init__(graph_module, encodings, batch, output)
        self.tensors: dict[str, Encoding] = {}
        self.parameters: dict[str, tuple[Encoding, int]] = {}  # with the channel axis
        self.biases: dict[str, Encoding] = {}
        self._result = output_node(graph_module).name
        self._tensor_of: dict[str, str] = {}  # node -> tensor

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        return super().node(kind, inputs, self.output if output == self._result else output, **attributes)

    def read_from(self, node: fx.Node) -> str:
        return self._tensor_of.get(node.name, node.name)

    def quantized(self, raw: str, name: str, grid_of: str, dequantized: str | None = None) -> str:
        """Notes the grid of tensor `raw`, and returns it."""
        if raw in self.tensors:
            raw = self.node("Identity", [raw], name)
        self.tensors[raw] = self.encodings.tensors[grid_of]
        self._tensor_of[name] = raw
        return raw

    def parameter(self, name: str, values: np.ndarray, encoding: Encoding, axis: int = 0) -> str:
        self.parameters[name] = (encoding, axis)
        return self.constant(name, values.astype(np.float32))

    def bias(self, name: str, values: np.ndarray, source: str, weight: Encoding) -> str:
        self.biases[name] = self.bias_grid(source, weight)
        return self.constant(name, values.astype(np.float32))
