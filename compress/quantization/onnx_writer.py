"""The quantized graph as a QDQ ONNX file that onnxruntime's QNN provider takes whole.

Every tensor leaves its operator through QuantizeLinear and DequantizeLinear, every weight is an integer initializer
behind DequantizeLinear, and every operator has the one form that the HTP backend accepts in 16 bits (Linear with a
bias is a two-dimensional Gemm, without one a MatMul with an axis-1 weight, and so on; each form was measured).
The file is written for batch 1, or any other fixed batch: the HTP has no dynamic shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from compress.quantization.compile_memory import Load
from compress.quantization.graph import TRACE_BATCH, module_of, operands_of, output_node, placeholders, shape_of
from compress.quantization.grids import Encoding, Encodings, class_name
from compress.quantization.host import OUTPUT_NAME

OPSET = 23  # first with RMSNormalization; Gelu needs 20, 16-bit QuantizeLinear 21
IR_VERSION = 11  # the newest that onnxruntime-qnn 2.7 and onnx 1.18 to 1.20 agree on


def write_onnx(
    graph_module: fx.GraphModule, encodings: Encodings, path: Path, batch: int = 1, output: str = OUTPUT_NAME
) -> None:
    """Writes the lowered float graph with these grids to `path`, checked by onnx.checker.

    Inputs and output are float32; the first and last operators are the only ones that see floats on the HTP.
    """
    import onnx

    model = Writer(graph_module, encodings, batch, output).model()
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


class Writer:
    """Collects nodes and initializers while walking the graph; tensor names are node names plus a role."""

    def __init__(self, graph_module: fx.GraphModule, encodings: Encodings, batch: int, output: str) -> None:
        self.graph_module = graph_module
        self.encodings = encodings
        self.batch = batch
        self.output = output
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}

    def model(self) -> Any:
        from onnx import TensorProto, helper

        result = output_node(self.graph_module)
        for node in self.graph_module.graph.nodes:
            module = module_of(node)
            if module is not None:
                self._write(node, module, self.output if node is result else f"{node.name}_dq")

        def described(name: str, node: fx.Node) -> Any:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, self.shape(node))

        graph = helper.make_graph(
            self.nodes,
            self.output,
            [described(node.name, node) for node in placeholders(self.graph_module)],
            [described(self.output, result)],
            list(self.initializers.values()),
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="pocketdiff",
        )
        shapes = [self.shape(node) for node in self.graph_module.graph.nodes if module_of(node) is not None]
        helper.set_model_props(model, Load.of(self.initializers.values(), shapes).as_properties())
        return model

    def shape(self, node: fx.Node) -> list[int]:
        """The node's shape at the written batch."""
        traced = shape_of(node)
        assert traced[0] == TRACE_BATCH
        return [self.batch, *traced[1:]]

    # -- pieces ------------------------------------------------------------------------------------------------------

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: np.ndarray) -> str:
        from onnx import numpy_helper

        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def _grid(self, name: str) -> list[str]:
        """The scale and zero point initializers of a tensor's grid."""
        encoding = self.encodings.tensors[name]
        scale = self.constant(f"{name}_scale", encoding.scale)
        zero = self.constant(f"{name}_zero", np.array(encoding.zero_point, dtype=encoding.dtype))
        return [scale, zero]

    def quantized(self, raw: str, name: str, grid_of: str, dequantized: str | None = None) -> str:
        """raw -> QuantizeLinear -> DequantizeLinear on the grid of node `grid_of`; returns the dequantized name."""
        grid = self._grid(grid_of)
        self.node("QuantizeLinear", [raw, *grid], f"{name}_q")
        return self.node("DequantizeLinear", [f"{name}_q", *grid], dequantized or f"{name}_dq")

    def parameter(self, name: str, values: np.ndarray, encoding: Encoding, axis: int = 0) -> str:
        """An integer initializer behind DequantizeLinear; `axis` is the channel axis of a per-channel scale."""
        scale = self.constant(f"{name}_scale", encoding.scale)
        zero = np.full(encoding.scale.shape, encoding.zero_point, dtype=encoding.dtype)
        inputs = [
            self.constant(f"{name}_q", encoding.quantize(values, axis)),
            scale,
            self.constant(f"{name}_zero", zero),
        ]
        attributes = {"axis": axis} if encoding.scale.ndim else {}
        return self.node("DequantizeLinear", inputs, f"{name}_dq", **attributes)

    def bias(self, name: str, values: np.ndarray, source: str, weight: Encoding) -> str:
        """An int32 bias on the grid that the accumulator has."""
        scale = self.bias_grid(source, weight).scale
        integers = np.rint(values.astype(np.float64) / scale)
        if np.abs(integers).max(initial=0) >= 2**31:
            raise OverflowError(f"the bias {name} does not fit 32 bits on its scale; recalibrate")
        zero = self.constant(f"{name}_zero", np.zeros(scale.shape, dtype=np.int32))
        inputs = [self.constant(f"{name}_q", integers.astype(np.int32)), self.constant(f"{name}_scale", scale), zero]
        attributes = {"axis": 0} if scale.ndim else {}
        return self.node("DequantizeLinear", inputs, f"{name}_dq", **attributes)

    def bias_grid(self, source: str, weight: Encoding) -> Encoding:
        """int32 on the scale of the accumulator: input scale times weight scale."""
        scale = self.encodings.tensors[source].scale * weight.scale
        return Encoding(np.asarray(scale, dtype=np.float32), 0, 32, True)

    # -- operators ---------------------------------------------------------------------------------------------------

    def _write(self, node: fx.Node, module: nn.Module, dequantized: str) -> None:
        operands = [self.read_from(operand) for operand in operands_of(node)]
        raw = OPERATORS[class_name(module)](self, node, module, operands)
        self.quantized(raw, node.name, node.name, dequantized)

    def read_from(self, node: fx.Node) -> str:
        """The tensor that those who take this node's value read."""
        return node.name if node.op == "placeholder" else f"{node.name}_dq"

    def simple(self, kind: str, node: fx.Node, operands: list[str], **attributes: Any) -> str:
        return self.node(kind, operands, node.name, **attributes)

    def with_weight(self, node: fx.Node, module: Any, axis: int = 0, transpose: bool = False) -> str:
        values = module.weight.detach().float().numpy()
        values = values.T if transpose else values
        return self.parameter(f"{node.name}.weight", values, self.encodings.parameters[f"{node.name}.weight"], axis)

    def with_bias(self, node: fx.Node, module: Any) -> list[str]:
        """The bias operand, if the module has a bias."""
        if module.bias is None:
            return []
        weight = self.encodings.parameters[f"{node.name}.weight"]
        values = module.bias.detach().float().numpy()
        return [self.bias(f"{node.name}.bias", values, node.all_input_nodes[0].name, weight)]


def _conv(writer: Writer, node: fx.Node, module: Any, operands: list[str]) -> str:
    rows, columns = module.padding
    inputs = [*operands, writer.with_weight(node, module), *writer.with_bias(node, module)]
    return writer.simple(
        "Conv",
        node,
        inputs,
        kernel_shape=list(module.kernel_size),
        strides=list(module.stride),
        pads=[rows, columns, rows, columns],
        dilations=list(module.dilation),
        group=module.groups,
    )


def _linear(writer: Writer, node: fx.Node, module: Any, operands: list[str]) -> str:
    """Without a bias MatMul, with one Gemm between two reshapes: the forms that become QNN's FullyConnected."""
    if module.bias is None:
        return writer.simple("MatMul", node, [*operands, writer.with_weight(node, module, axis=1, transpose=True)])
    source = node.all_input_nodes[0]
    flat = operands
    if len(shape_of(node)) > 2:
        rows = int(np.prod(writer.shape(node)[:-1]))
        flat = [_reshaped(writer, operands[0], f"{node.name}_rows", [rows, module.in_features], source.name)]
    inputs = [*flat, writer.with_weight(node, module), *writer.with_bias(node, module)]
    if flat is operands:
        return writer.simple("Gemm", node, inputs, transB=1)
    product = writer.node("Gemm", inputs, f"{node.name}_product", transB=1)
    product = writer.quantized(product, f"{node.name}_product", node.name)
    shape = writer.constant(f"{node.name}_shape", np.array(writer.shape(node), dtype=np.int64))
    return writer.simple("Reshape", node, [product, shape])


def _reshaped(writer: Writer, operand: str, name: str, shape: list[int], grid_of: str) -> str:
    target = writer.constant(f"{name}_shape", np.array(shape, dtype=np.int64))
    return writer.quantized(writer.node("Reshape", [operand, target], name), name, grid_of)


def _reshape(writer: Writer, node: fx.Node, module: Any, operands: list[str]) -> str:
    shape = writer.constant(f"{node.name}_shape", np.array(writer.shape(node), dtype=np.int64))
    return writer.simple("Reshape", node, [*operands, shape])


def _layer_norm(writer: Writer, node: fx.Node, module: Any, operands: list[str]) -> str:
    inputs = [*operands, writer.with_weight(node, module), *writer.with_bias(node, module)]
    return writer.simple("LayerNormalization", node, inputs, axis=-1, epsilon=module.eps)


def _rms_norm(writer: Writer, node: fx.Node, module: Any, operands: list[str]) -> str:
    inputs = [*operands, writer.with_weight(node, module)]
    return writer.simple("RMSNormalization", node, inputs, axis=-1, epsilon=module.eps)


def _instance_norm(writer: Writer, node: fx.Node, module: Any, operands: list[str]) -> str:
    inputs = [*operands, writer.with_weight(node, module), *writer.with_bias(node, module)]
    return writer.simple("InstanceNormalization", node, inputs, epsilon=module.eps)


def _with_constant(kind: str, parameter: str) -> Callable[[Writer, fx.Node, Any, list[str]], str]:
    def write(writer: Writer, node: fx.Node, module: Any, operands: list[str]) -> str:
        name = f"{node.name}.{parameter}"
        values: Tensor = getattr(module, parameter)
        constant = writer.parameter(name, values.detach().float().numpy(), writer.encodings.parameters[name])
        return writer.simple(kind, node, [*operands, constant])

    return write


def _upsample(writer: Writer, node: fx.Node, module: Any, operands: list[str]) -> str:
    scales = writer.constant(f"{node.name}_factors", np.array([1, 1, 2, 2], dtype=np.float32))
    return writer.simple(
        "Resize",
        node,
        [*operands, "", scales],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _plainly(kind: str, *attributes: str) -> Callable[[Writer, fx.Node, Any, list[str]], str]:
    """An operator without constants whose attributes are the module's own of the same names."""

    def write(writer: Writer, node: fx.Node, module: Any, operands: list[str]) -> str:
        return writer.simple(kind, node, operands, **{name: getattr(module, name) for name in attributes})

    return write


def _transpose(writer: Writer, node: fx.Node, module: Any, operands: list[str]) -> str:
    return writer.simple("Transpose", node, operands, perm=list(module.dims))


def _along(kind: str) -> Callable[[Writer, fx.Node, Any, list[str]], str]:
    def write(writer: Writer, node: fx.Node, module: Any, operands: list[str]) -> str:
        return writer.simple(kind, node, operands, axis=module.dim)

    return write


def _regridded(writer: Writer, node: fx.Node, module: Any, operands: list[str]) -> str:
    """No operator: the second Q/DQ pair is the change of grid; an Identity would be folded away together with it."""
    return operands[0]


OPERATORS: dict[str, Callable[[Writer, fx.Node, Any, list[str]], str]] = {
    "Conv2d": _conv,
    "Linear": _linear,
    "LayerNorm": _layer_norm,
    "RMSNorm": _rms_norm,
    "InstanceNorm1d": _instance_norm,
    "Reshape": _reshape,
    "Permute": _transpose,
    "Upsample": _upsample,
    "ScaleChannels": _with_constant("Mul", "weight"),
    "ShiftChannels": _with_constant("Add", "shift"),
    "Add": _plainly("Add"),
    "Multiply": _plainly("Mul"),
    "MatMul": _plainly("MatMul"),
    "Sigmoid": _plainly("Sigmoid"),
    "Tanh": _plainly("Tanh"),
    "ReLU": _plainly("Relu"),
    "GELU": _plainly("Gelu", "approximate"),
    "Softmax": _along("Softmax"),
    "Concat": _along("Concat"),
    "Requantize": _regridded,
    "NetworkInput": _regridded,
}
