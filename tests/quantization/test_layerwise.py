"""Layer by layer: cuts are the network itself up to there, and the first wrong layer is named."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx

from compress.quantization.graph import placeholders
from compress.quantization.htp import HtpTarget
from compress.quantization.layerwise import (
    LayerParity,
    Prober,
    block_ends,
    cut,
    first_divergence,
    layer_names,
    simulated_values,
)
from tests.quantization.conftest import Quantized


class Noting(fx.Interpreter):
    """Keeps every node's value."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Tensor:
        self.values[n.name] = super().run_node(n)
        return self.values[n.name]


def test_a_cut_computes_what_the_network_computes_there(quantized: Quantized) -> None:
    inputs = quantized.inputs
    noting = Noting(quantized.graph)
    noting.run(*inputs.tensors())
    names = layer_names(quantized.graph)
    for name in (names[0], names[len(names) // 3], names[2 * len(names) // 3], names[-1]):
        part = cut(quantized.graph, name)
        given = [inputs.named()[node.name] for node in placeholders(part)]
        assert torch.equal(part(*given), noting.values[name])
    assert len(placeholders(cut(quantized.graph, names[0]))) == 1
    assert len(placeholders(quantized.graph)) == 5  # the network itself is left alone


def test_blocks_end_where_the_next_one_begins(quantized: Quantized) -> None:
    names, ends = layer_names(quantized.graph), block_ends(quantized.graph)
    places = [names.index(end) for end in ends]
    assert places == sorted(places) and places[-1] == len(names) - 1
    assert 5 < len(ends) < len(names) / 3


def test_simulated_values_end_in_the_simulations_own_answer(quantized: Quantized) -> None:
    names = layer_names(quantized.graph)
    values = simulated_values(quantized.simulation, quantized.inputs, names)
    assert list(values) == names
    assert torch.equal(values[names[-1]], quantized.simulated)


@pytest.mark.parametrize("wrong", [0, 1, 37, 98, 99])
def test_the_first_wrong_layer_is_found_with_few_looks(wrong: int) -> None:
    names, looked = [f"layer{place}" for place in range(100)], []

    def measure(name: str) -> LayerParity:
        looked.append(name)
        return LayerParity(name, name, "Conv2d", 3.0 if names.index(name) >= wrong else 70.0)

    found = first_divergence(names, measure, least_db=40.0)
    assert found is not None
    bad, good = found
    assert bad.name == f"layer{wrong}" and (good is None if wrong == 0 else good.name == f"layer{wrong - 1}")
    assert len(looked) <= math.ceil(math.log2(100)) + 1
    assert first_divergence(names, lambda name: LayerParity(name, name, "Conv2d", 70.0), least_db=40.0) is None
    assert first_divergence([], measure, least_db=40.0) is None


@pytest.mark.slow
def test_a_grid_that_is_wrong_on_the_chip_alone_is_named(quantized: Quantized, tmp_path: Path) -> None:
    """What the emulator is given differs from the simulation in one tensor's scale: that tensor's layer is found."""
    pytest.importorskip("onnxruntime_qnn", reason="the wheel does not exist for this platform")
    names = block_ends(quantized.graph)
    wrong = names[len(names) // 2]
    encodings = copy.deepcopy(quantized.encodings)
    grid = encodings.tensors[wrong]
    encodings.tensors[wrong] = replace(grid, scale=grid.scale / 4)  # clips to a quarter of the range
    prober = Prober(quantized.simulation, encodings, quantized.inputs[:1], HtpTarget(), tmp_path)
    found = first_divergence(names, prober.measure, least_db=40.0)
    assert found is not None
    bad, good = found
    assert bad.name == wrong and good is not None and good.sqnr_db >= 50
    assert bad.origin and bad.kind
    kept = names[: names.index(wrong) + 1]
    table = prober.table(kept, side_by_side=2)
    assert [row.name for row in table] == kept and [row.sqnr_db >= 40 for row in table[-2:]] == [True, False]
