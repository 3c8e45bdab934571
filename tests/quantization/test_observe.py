"""Ranges from the float network are those that AIMET's own quantizers come to on the same tensors."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, fx

from compress.quantization.host import NetworkInputs
from compress.quantization.observe import observe_activations, observe_parameter
from compress.quantization.ranges import ACTIVATION_RANGES, Ranges
from tests.quantization.layers import calls, simulation

HEADROOM = 1.25


def seen(graph: fx.GraphModule, inputs: NetworkInputs) -> dict[str, Tensor]:
    """Every node's value."""
    found: dict[str, Tensor] = {}

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            found[n.name] = super().run_node(n)
            return found[n.name]

    Watch(graph).run(*inputs.tensors())
    return found


def test_there_is_a_tensor_to_observe_for_every_grid() -> None:
    made = simulation()
    assert made.grids.keys() <= seen(made.float_graph, calls(2, seed=1)).keys() and len(made.grids) == 5


@pytest.mark.parametrize("kind", ACTIVATION_RANGES)
def test_two_batches_are_what_aimet_comes_to(kind: str) -> None:
    made, inputs = simulation(Ranges(activations=kind)), calls(8, seed=3)
    free = {name: grid for name, grid in made.grids.items() if grid.is_overwrite_allowed()}
    expected = {name: copy.deepcopy(grid) for name, grid in free.items()}
    for name, grid in expected.items():
        with grid.compute_encodings():
            for batch in (inputs[:4], inputs[4:]):
                grid(seen(made.float_graph, batch)[name])
    observe_activations(made.float_graph, made.grids, [inputs[:4].tensors(), inputs[4:].tensors()], HEADROOM)
    assert len(free) == 4  # a sigmoid's range is fixed
    for name, grid in free.items():
        torch.testing.assert_close(grid.get_min(), expected[name].get_min() * HEADROOM)
        torch.testing.assert_close(grid.get_max(), expected[name].get_max() * HEADROOM)


def test_a_fixed_range_and_the_network_stay() -> None:
    made, inputs = simulation(), calls(8, seed=3)
    before, gate = made.float_graph(*inputs.tensors()), made.grids["gate"]
    observe_activations(made.float_graph, made.grids, [inputs.tensors()], HEADROOM)
    assert float(gate.get_min()) == 0.0 and float(gate.get_max()) == pytest.approx(1.0, abs=1e-4)
    assert torch.equal(made.float_graph(*inputs.tensors()), before)


def test_a_weight_holds_its_largest_number() -> None:
    made = simulation()
    (weight, quantizer) = next((p, q) for name, p, q in made._parameter_quantizers() if name == "linear.weight")
    observe_parameter(3 * weight, quantizer)
    torch.testing.assert_close(quantizer.get_scale().flatten() * 127, 3 * weight.abs().amax(1), rtol=1e-2, atol=0)


def test_nothing_to_observe_is_said() -> None:
    from aimet_torch.quantization.encoding_analyzer import StatisticsNotFoundError

    made = simulation()
    with pytest.raises(StatisticsNotFoundError):
        observe_activations(made.float_graph, made.grids, [])
