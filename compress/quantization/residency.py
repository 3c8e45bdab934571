"""What the HTP really computes in: QNN's dump of the compiled graph, read node by node.

A graph can be taken whole by the HTP and still compute in float (any operator whose result has no grid pulls its
neighbours along), so that disabling the CPU fallback proves nothing about integers; this does.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

# Qnn_DataType_t, hexadecimal: kind (00 int, 01 uint, 02 float, 03 sfixed, 04 ufixed, 05 bool) and bits.
_KINDS = {0x00: "int", 0x01: "uint", 0x02: "float", 0x03: "sfixed", 0x04: "ufixed", 0x05: "bool"}
BOUNDARY = ("Quantize", "Dequantize")


def dtype_name(code: int) -> str:
    """QNN's number of a data type in words: 0x0416 -> "ufixed16"; bits are written as decimal digits in hex."""
    return f"{_KINDS.get(code >> 8, f'kind{code >> 8:#x}_')}{code & 0xFF:x}"


@dataclass(frozen=True)
class Residency:
    """Counts over the dumped graph. `float_ops` name nodes other than the boundary's that touch a float tensor,
    `unrequested_converts` conversions to 8 bits, which nobody asked for in a 16-bit network."""

    nodes: int
    by_type: dict[str, int]
    by_signature: dict[str, int] = field(repr=False)
    float_ops: tuple[str, ...] = ()
    unrequested_converts: tuple[str, ...] = ()
    boundary_ops: int = 0

    def metrics(self) -> dict[str, float]:
        return {
            "htp_nodes_count": self.nodes,
            "float_ops_count": len(self.float_ops),
            "unrequested_converts_count": len(self.unrequested_converts),
            "boundary_ops_count": self.boundary_ops,
        }


def read_residency(graph_json: Path) -> Residency:
    """Reads a file that the provider wrote under dump_json_qnn_graph."""
    graph = json.loads(graph_json.read_text())["graph"]
    dtypes = {name: dtype_name(tensor["data_type"]) for name, tensor in graph["tensors"].items()}
    types: Counter[str] = Counter()
    signatures: Counter[str] = Counter()
    floats, converts = [], []
    for name, node in graph["nodes"].items():
        kind = node["type"]
        takes = [dtypes[tensor] for tensor in node["input_names"]]
        gives = [dtypes[tensor] for tensor in node["output_names"]]
        types[kind] += 1
        signatures[f"{kind}({', '.join(takes)}) -> {', '.join(gives)}"] += 1
        if kind not in BOUNDARY and any(dtype.startswith("float") for dtype in takes + gives):
            floats.append(name)
        if kind == "Convert" and any(dtype.endswith("fixed8") for dtype in gives):
            converts.append(name)
    return Residency(
        nodes=sum(types.values()),
        by_type=dict(types.most_common()),
        by_signature=dict(signatures.most_common()),
        float_ops=tuple(floats),
        unrequested_converts=tuple(converts),
        boundary_ops=sum(types[kind] for kind in BOUNDARY),
    )


def nodes_on_htp_percent(wrapper: Path, residency: Residency) -> float:
    """Share of operators that the compiled file runs on the HTP: all, unless its wrapper holds others."""
    import onnx

    nodes = onnx.load(wrapper).graph.node
    elsewhere = sum(node.op_type != "EPContext" for node in nodes)
    return 100.0 * residency.nodes / (residency.nodes + elsewhere)
