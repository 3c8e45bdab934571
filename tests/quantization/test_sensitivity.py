"""What every grid costs, on networks where that is known."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compress.quantization import sensitivity as module
from compress.quantization.aimet import Simulation
from compress.quantization.autoencoder import NamedTensors
from compress.quantization.lowering import lower
from compress.quantization.rules import load_rules
from compress.quantization.sensitivity import ACTIVATION, WEIGHT, Row, block_of, total_noise, units, widened
from tests.quantization.conftest import Quantized


class Small(nn.Module):
    """A convolution, a nonlinearity, a skip connection and another convolution, of which half sees nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Conv2d(4, 16, 3, padding=1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 4, 1)
        nn.init.zeros_(self.last.weight[:, 8:])  # what the second convolution's later channels say is not heard

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.last(hidden + self.second(torch.relu(hidden)))


@pytest.fixture(scope="module")
def inputs() -> NamedTensors:
    return NamedTensors(("x",), (torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(1)),))


@pytest.fixture(scope="module")
def simulation(inputs: NamedTensors) -> Simulation:
    traced = torch.export.export(Small().eval(), (torch.zeros(2, 4, 8, 8),)).module(check_guards=False)
    simulation = Simulation(lower(traced), load_rules(75))
    simulation.calibrate(inputs)
    return simulation


@pytest.fixture(scope="module")
def rows(simulation: Simulation, inputs: NamedTensors) -> list[Row]:
    return module.sensitivity(simulation, inputs, torch.arange(6) % 2)


def test_every_grid_has_a_row(simulation: Simulation, rows: list[Row]) -> None:
    encodings = simulation.encodings()
    assert {row.name for row in rows if row.kind == WEIGHT} == encodings.parameters.keys()
    tensors = {row.name for row in rows if row.kind == ACTIVATION}
    assert len(tensors) == len({id(quantizer) for quantizer in simulation.grids.values()})
    (first,) = [row for row in rows if row.name == "first.weight"]
    assert (first.bits, first.numbers, first.block) == (8, 4 * 16 * 9, "first")
    assert all(len(row.by_step_db) == 2 for row in rows)


def test_the_float_graph_is_as_it_was_even_after_an_error(simulation: Simulation, inputs: NamedTensors) -> None:
    before = simulation.float_graph(*inputs.tensors())
    for unit in units(simulation):
        with pytest.raises(ZeroDivisionError), unit.alone():
            raise ZeroDivisionError
    assert torch.equal(simulation.float_graph(*inputs.tensors()), before)


@torch.no_grad()
def test_all_grids_at_once_are_the_simulation(simulation: Simulation, inputs: NamedTensors) -> None:
    with ExitStack() as grids:
        for unit in units(simulation):
            grids.enter_context(unit.alone())
        together = simulation.float_graph(*inputs.tensors())
    torch.testing.assert_close(together, simulation(inputs), atol=1e-6, rtol=0)


@torch.no_grad()
def test_what_grids_cost_alone_adds_up_to_what_they_cost_together(
    simulation: Simulation, inputs: NamedTensors, rows: list[Row]
) -> None:
    reference = simulation.float_graph(*inputs.tensors()).double()
    noise = (simulation(inputs) - reference).pow(2).sum() / reference.pow(2).sum()
    assert total_noise(rows) == pytest.approx(float(noise), rel=0.3)


def test_eight_bits_cost_more_than_sixteen(rows: list[Row]) -> None:
    noise = {kind: total_noise(row for row in rows if row.kind == kind) for kind in (WEIGHT, ACTIVATION)}
    assert noise[WEIGHT] > 100 * noise[ACTIVATION] > 0


def test_a_weight_that_is_on_its_grid_already_costs_nothing(simulation: Simulation, inputs: NamedTensors) -> None:
    (unit,) = [unit for unit in units(simulation) if unit.name == "second.weight"]
    convolution = simulation.float_graph.get_submodule("second")
    kept = convolution.weight
    with unit.alone():
        convolution_on_grid = convolution._parameters["weight"]
    convolution._parameters["weight"] = convolution_on_grid
    (row,) = module.sensitivity(simulation, inputs, torch.zeros(6), chosen=["second.weight"])
    convolution._parameters["weight"] = kept
    assert row.noise_share == 0.0 and row.sqnr_db == math.inf


def test_a_unets_grids_are_measured_on_the_target_panel(quantized: Quantized) -> None:
    chosen = ("conv_in.weight", "conv_out")
    found = module.sensitivity(quantized.simulation, quantized.inputs, torch.zeros(4), chosen=chosen)
    assert {row.name: row.kind for row in found} == {"conv_in.weight": WEIGHT, "conv_out": ACTIVATION}
    assert all(0 < row.noise_share < 1e-2 for row in found)
    (whole,) = module.sensitivity(quantized.simulation, quantized.inputs, torch.zeros(4), chosen=chosen[1:], pair=False)
    assert whole.noise_share != next(row.noise_share for row in found if row.name == "conv_out")


def test_blocks_are_those_of_a_unet() -> None:
    assert block_of("down_blocks.1.attentions.0.norm") == "down_blocks.1"
    assert block_of("mid_block.resnets.0") == "mid_block" and block_of("conv_out") == "conv_out"


def row(name: str, numbers: int, noise: float, bits: int = 8, kind: str = WEIGHT) -> Row:
    return Row(name, kind, name, name, bits, numbers, noise, -10 * math.log10(noise), (1.0,))


def test_the_knapsack_takes_the_dearest_noise_per_byte_first() -> None:
    found = [
        row("dear", 1_000_000, 1e-4),
        row("cheap", 100_000, 5e-5),
        row("tiny", 10, 1e-9),
        row("norm", 64, 1e-2, bits=16),
        row("tensor", 0, 1e-2, kind=ACTIVATION),
    ]
    assert widened(found, 0.0) == ()
    assert widened(found, 0.1) == ("cheap",)
    assert widened(found, 0.2) == ("cheap", "tiny")  # the dear one does not fit and is passed over
    assert widened(found, 2.0) == ("cheap", "dear", "tiny")


def test_rows_survive_their_file(rows: list[Row], tmp_path: Path) -> None:
    module.save(rows, tmp_path / module.FILE)
    entries = json.loads((tmp_path / module.FILE).read_text())
    again = [Row(**entry | {"by_step_db": tuple(entry["by_step_db"])}) for entry in entries]
    assert again == rows
