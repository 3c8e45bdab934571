"""Grids of integers: which tensors of a graph share one, of what type it is, and the calibrated encodings of all.

Tensors tied to one grid: everything that moves values without computing (reshape, permute, nearest upsampling) keeps
the grid of its input, and a concatenation has one grid for all its inputs and its output. The HTP would otherwise
insert conversions of its own, or fall to float.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import fx, nn

from compress.quantization import ops
from compress.quantization.graph import module_of
from compress.quantization.rules import HtpRules

ENCODINGS_VERSION = "1.0.0"  # of AIMET's file format


@dataclass(frozen=True)
class GridKind:
    """Integer type of a grid. `fixed` is its real range where that holds whatever the data."""

    bits: int
    signed: bool = False
    fixed: tuple[float, float] | None = None


ACTIVATION = GridKind(16)
SECOND_OPERAND = GridKind(16, signed=True)


def tied_groups(graph_module: fx.GraphModule) -> list[list[fx.Node]]:
    """The nodes of a lowered graph in groups, in graph order, each of which shares one grid."""
    leader: dict[fx.Node, fx.Node] = {}

    def find(node: fx.Node) -> fx.Node:
        while leader[node] is not node:
            node = leader[node]
        return node

    called = [node for node in graph_module.graph.nodes if node.op == "call_module"]
    for node in called:
        leader[node] = node
        if isinstance(module_of(node), (ops.Reshape, ops.Permute, ops.Concat, nn.Upsample)):
            for operand in node.all_input_nodes:
                leader[find(operand)] = find(node)
    groups: dict[fx.Node, list[fx.Node]] = {}
    for node in called:
        groups.setdefault(find(node), []).append(node)
    return list(groups.values())


def kind_of(group: list[fx.Node], rules: HtpRules) -> GridKind:
    """16-bit unsigned, but signed behind `Requantize`, and fixed where all that compute in the group agree on it."""
    moving = (ops.Reshape, ops.Permute, ops.Concat, nn.Upsample)
    computing = [module for module in map(module_of, group) if not isinstance(module, moving)]
    if any(isinstance(module, ops.Requantize) for module in computing):
        if len(computing) > 1:
            raise ValueError(f"a signed operand shares its grid with {[node.name for node in group]}")
        return SECOND_OPERAND
    ranges = {getattr(module, "limits", None) or rules.fixed_range(class_name(module)) for module in computing}
    return GridKind(16, fixed=ranges.pop()) if len(ranges) == 1 else ACTIVATION


def class_name(module: nn.Module) -> str:
    """The class a module had before AIMET wrapped it."""
    return type(module).__name__.removeprefix("Quantized")


@dataclass(frozen=True)
class Encoding:
    """A calibrated grid: real = scale * (integer - zero_point). `scale` is float32, scalar or one a channel."""

    scale: np.ndarray
    zero_point: int
    bits: int
    signed: bool

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(f"{'int' if self.signed else 'uint'}{self.bits}")

    def quantize(self, values: np.ndarray, axis: int = 0) -> np.ndarray:
        """Nearest integers, ties to even, clipped to the type; `axis` is the channel axis of a vector scale."""
        scale = self.scale
        if scale.ndim:
            scale = scale.reshape([-1 if dim == axis else 1 for dim in range(values.ndim)])
        limits = np.iinfo(self.dtype)
        integers = np.rint(values.astype(np.float32) / scale) + self.zero_point
        return np.clip(integers, limits.min, limits.max).astype(self.dtype)

    def as_aimet(self, name: str) -> dict[str, object]:
        """One entry of AIMET's encodings file, version 1.0.0, where offsets are negative zero points."""
        scales = np.atleast_1d(self.scale)
        offset = -(2 ** (self.bits - 1)) if self.signed else -self.zero_point
        return {
            "name": name,
            "dtype": "INT",
            "bw": self.bits,
            "is_sym": self.signed,
            "enc_type": "PER_CHANNEL" if self.scale.ndim else "PER_TENSOR",
            "scale": [float(scale) for scale in scales],
            "offset": [offset] * len(scales),
        }

    def as_aimet_2(self, name: str, axis: int | None = None) -> dict[str, object]:
        """One entry of version 2.0.0, in the words of ONNX's QuantizeLinear; `axis` is that of a vector scale."""
        entry: dict[str, object] = {
            "name": name,
            "output_dtype": str(self.dtype),
            "y_scale": self.scale.astype(float).tolist(),
        }
        if self.zero_point:
            entry["y_zero_point"] = np.full(self.scale.shape, self.zero_point).tolist()
        if self.scale.ndim:
            entry["axis"] = axis
        return entry

    @classmethod
    def from_aimet(cls, entry: dict) -> Encoding:
        scale = np.array(entry["scale"], dtype=np.float32)
        return cls(
            scale=scale if entry["enc_type"] == "PER_CHANNEL" else scale.reshape(()),
            zero_point=0 if entry["is_sym"] else -entry["offset"][0],
            bits=entry["bw"],
            signed=entry["is_sym"],
        )


@dataclass
class Encodings:
    """All calibrated grids: `tensors` by the node that computes them, `parameters` by "node.parameter"."""

    tensors: dict[str, Encoding] = field(default_factory=dict)
    parameters: dict[str, Encoding] = field(default_factory=dict)

    @property
    def wide(self) -> tuple[str, ...]:
        """The parameters with 16 bits."""
        return tuple(name for name, encoding in self.parameters.items() if encoding.bits == 16)

    def save(self, path: Path) -> None:
        """AIMET's encodings file, which QAIRT's converter reads too; names are those of the ONNX file."""
        content = {
            "version": ENCODINGS_VERSION,
            "activation_encodings": [encoding.as_aimet(name) for name, encoding in self.tensors.items()],
            "param_encodings": [encoding.as_aimet(name) for name, encoding in self.parameters.items()],
            "excluded_layers": [],
        }
        path.write_text(json.dumps(content))

    @classmethod
    def load(cls, path: Path) -> Encodings:
        content = json.loads(path.read_text())
        if content["version"] != ENCODINGS_VERSION:
            raise ValueError(f"{path} has encodings version {content['version']}, not {ENCODINGS_VERSION}")
        return cls(
            {entry["name"]: Encoding.from_aimet(entry) for entry in content["activation_encodings"]},
            {entry["name"]: Encoding.from_aimet(entry) for entry in content["param_encodings"]},
        )


def with_equal_weights(calibrated: Sequence[Encodings]) -> list[Encodings]:
    """The grids of one network at several resolutions, each with its own activations and all with the same weights.

    Scales of weights differ only where an accumulator's guard has widened them; the widest serves all.
    """
    shared: dict[str, Encoding] = {}
    for name, first in calibrated[0].parameters.items():
        scales = [encodings.parameters[name].scale for encodings in calibrated]
        shared[name] = replace(first, scale=np.asarray(np.maximum.reduce(scales), dtype=first.scale.dtype))
    return [Encodings(encodings.tensors, shared) for encodings in calibrated]
