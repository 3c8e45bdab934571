"""Grids: which tensors share one, what an integer stands for, and AIMET's file format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import fx, nn

from compress.quantization import ops
from compress.quantization.graph import module_of
from compress.quantization.grids import (
    ACTIVATION,
    SECOND_OPERAND,
    Encoding,
    Encodings,
    GridKind,
    kind_of,
    tied_groups,
    with_equal_weights,
)
from compress.quantization.host import PADDED
from compress.quantization.rules import load_rules


def test_integers_by_hand() -> None:
    grid = Encoding(np.array(0.5, np.float32), zero_point=10, bits=8, signed=False)
    values = np.array([0.0, 0.25, 0.75, 1.0, -5.0, -6.0, 200.0])
    assert grid.quantize(values).tolist() == [10, 10, 12, 12, 0, 0, 255]  # ties to even, clipped to 0..255
    assert grid.quantize(values).dtype == np.uint8


def test_one_scale_a_channel() -> None:
    grid = Encoding(np.array([1.0, 2.0], np.float32), zero_point=0, bits=8, signed=True)
    values = np.array([[1.0, 2.0], [4.0, -400.0]])
    assert grid.quantize(values, axis=0).tolist() == [[1, 2], [2, -128]]
    assert grid.quantize(values, axis=1).tolist() == [[1, 1], [4, -128]]


def test_resolutions_get_the_widest_scale_of_a_weight_and_keep_their_activations() -> None:
    def encodings(activation: float, weights: list[float] | float) -> Encodings:
        scale = np.array(weights, np.float32)
        grids = {"a": Encoding(np.array(activation, np.float32), 5, 16, False)}
        return Encodings(grids, {"c.weight": Encoding(scale, 0, 8, True)})

    one, other = with_equal_weights([encodings(0.1, [1.0, 4.0]), encodings(0.2, [3.0, 2.0])])
    assert one.parameters["c.weight"].scale.tolist() == [3.0, 4.0] and one.parameters == other.parameters
    assert (float(one.tensors["a"].scale), float(other.tensors["a"].scale)) == (np.float32(0.1), np.float32(0.2))
    (single, _) = with_equal_weights([encodings(0.1, 1.0), encodings(0.1, 2.0)])
    assert single.parameters["c.weight"].scale.shape == () and single.parameters["c.weight"].scale.dtype == np.float32


def test_encodings_survive_their_file(tmp_path: Path) -> None:
    written = Encodings(
        {
            "a": Encoding(np.array(1e-4, np.float32), 123, 16, False),
            "b": Encoding(np.array(0.1, np.float32), 0, 16, True),
        },
        {"c.weight": Encoding(np.array([0.1, 0.2], np.float32), 0, 8, True)},
    )
    written.save(tmp_path / "encodings.json")
    read = Encodings.load(tmp_path / "encodings.json")
    for name, grid in {**written.tensors, **written.parameters}.items():
        again = (read.tensors | read.parameters)[name]
        assert (again.zero_point, again.bits, again.signed) == (grid.zero_point, grid.bits, grid.signed)
        np.testing.assert_array_equal(again.scale, grid.scale)
        assert again.scale.shape == grid.scale.shape


def test_tied_tensors_share_one_grid(graph: fx.GraphModule) -> None:
    groups = tied_groups(graph)
    group_of = {node: index for index, group in enumerate(groups) for node in group}
    called = [node for node in graph.graph.nodes if node.op == "call_module"]
    assert set(group_of) == set(called)
    moving = (ops.Reshape, ops.Permute, ops.Concat, nn.Upsample)
    for node in called:
        if isinstance(module_of(node), moving):
            assert {group_of[node]} == {group_of[operand] for operand in node.all_input_nodes}
    assert sum(len(group) > 1 for group in groups) > 10


def test_kinds_of_grids(graph: fx.GraphModule) -> None:
    rules = load_rules(75)
    kinds = {node: kind_of(group, rules) for group in tied_groups(graph) for node in group}
    for node, kind in kinds.items():
        module = module_of(node)
        if isinstance(module, ops.Requantize):
            assert kind == SECOND_OPERAND == GridKind(16, signed=True)
        elif isinstance(module, (nn.Sigmoid, nn.Softmax)):
            assert kind == GridKind(16, fixed=(0.0, 1.0))
        elif getattr(module, "limits", None) is not None:
            assert kind == GridKind(16, fixed=(PADDED, 0.0))
        elif not isinstance(module, (ops.Reshape, ops.Permute)):
            assert kind == ACTIVATION


def test_every_product_of_activations_has_a_signed_second_operand(graph: fx.GraphModule) -> None:
    products = [node for node in graph.graph.nodes if isinstance(module_of(node), ops.MatMul)]
    assert len(products) == 2 * 12  # down 1 + 1 + 2, mid 2, up 4 + 2 attentions, two products each
    for node in products:
        assert isinstance(module_of(node.args[1]), ops.Requantize)  # type: ignore[arg-type]
    assert torch.is_tensor(products[0].meta["shape"]) is False
