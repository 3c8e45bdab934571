"""What every grid costs, on networks where that is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from compress.quantization import sensitivity as module
from compress.quantization.sensitivity import ACTIVATION, WEIGHT, Row, block_of, only, total_noise, units, widened
from tests.quantization.conftest import Quantized


@pytest.fixture(scope="module")
def rows(quantized: Quantized) -> list[Row]:
    step_n = torch.arange(len(quantized.inputs)) % 2
    return module.sensitivity(quantized.simulation, quantized.inputs, step_n)


def test_without_any_grid_the_simulation_is_the_float_network(quantized: Quantized) -> None:
    every = units(quantized.simulation)
    with only(every, ()):
        bare = quantized.simulation(quantized.inputs)
    assert torch.equal(bare, quantized.graph(*quantized.inputs.tensors()))
    assert torch.equal(quantized.simulation(quantized.inputs), quantized.simulated)  # all grids are back


def test_grids_are_back_after_an_error(quantized: Quantized) -> None:
    with pytest.raises(ZeroDivisionError), only(units(quantized.simulation), ()):
        raise ZeroDivisionError
    assert torch.equal(quantized.simulation(quantized.inputs), quantized.simulated)


def test_every_grid_has_a_row(quantized: Quantized, rows: list[Row]) -> None:
    assert {row.name for row in rows if row.kind == WEIGHT} == quantized.encodings.parameters.keys()
    tensors = {row.name for row in rows if row.kind == ACTIVATION}
    assert tensors <= quantized.encodings.tensors.keys()
    assert len(tensors) == len({id(quantizer) for quantizer in quantized.simulation.grids.values()})
    layers = {row.name: row for row in rows}
    assert layers["conv_in.weight"].bits == 8 and layers["conv_in.weight"].block == "conv_in"
    assert layers["conv_in.weight"].numbers == quantized.unet.conv_in.weight.numel()
    assert all(len(row.by_step_db) == 2 for row in rows)


def test_what_grids_cost_alone_adds_up_to_what_they_cost_together(quantized: Quantized, rows: list[Row]) -> None:
    columns = quantized.inputs.sample_bchw.shape[3] // 2
    reference = quantized.graph(*quantized.inputs.tensors())[..., :columns].double()
    noise = (quantized.simulated[..., :columns] - reference).pow(2).sum() / reference.pow(2).sum()
    assert total_noise(rows) == pytest.approx(float(noise), rel=0.5)


def test_eight_bits_cost_more_than_sixteen(rows: list[Row]) -> None:
    noise = {kind: total_noise(row for row in rows if row.kind == kind) for kind in (WEIGHT, ACTIVATION)}
    assert noise[WEIGHT] > 10 * noise[ACTIVATION] > 0


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
