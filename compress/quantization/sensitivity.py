"""What every grid costs: the network in float but for one weight, or one tensor, and how far its output moves.

At 16 and 8 bits the errors are small and nearly independent, so that what grids cost together is close to the sum of
what each costs alone; `total_noise` of the rows tells how close. Units that share a grid are one row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from compress.quantization.aimet import Simulation
from compress.quantization.graph import origin
from compress.quantization.host import NetworkInputs
from compress.quantization.parity import sqnr_db
from compress.stages.context import Progress

KINDS = WEIGHT, ACTIVATION = ("weight", "activation")
FILE = "sensitivity.json"  # in an artefact's quantized/


@dataclass(frozen=True)
class Row:
    """One grid alone. `noise_share` is squared error over squared signal at the output, `sqnr_db` the same in dB, over
    all calls; `by_step_db` over those of each sampling step. `numbers` are the weights on the grid, 0 of a tensor."""

    name: str
    kind: str
    origin: str
    block: str
    bits: int
    numbers: int
    noise_share: float
    sqnr_db: float
    by_step_db: tuple[float, ...]


@dataclass(frozen=True)
class Unit:
    """A grid, and the places in AIMET's modules where it sits."""

    name: str
    kind: str
    origin: str
    bits: int
    numbers: int
    places: tuple[tuple[Any, Any], ...]
    quantizer: Any


def units(simulation: Simulation) -> list[Unit]:
    """Every weight's grid and every tensor's, tied ones once, in the order of the network."""
    found: list[Unit] = []
    tied: dict[int, list[tuple[fx.Node, Any]]] = {}
    for node, module in simulation.nodes():
        for name, quantizer in module.param_quantizers.items():
            if quantizer is not None:
                parameter: Tensor = getattr(module, name)
                place = ((module.param_quantizers, name),)
                full, bits = f"{node.name}.{name}", quantizer.bitwidth
                found.append(Unit(full, WEIGHT, origin(node), bits, parameter.numel(), place, quantizer))
        tied.setdefault(id(simulation.grids[node.name]), []).append((node, module))
    for members in tied.values():
        (first, _), quantizer = members[0], simulation.grids[members[0][0].name]
        places = tuple((module.output_quantizers, 0) for _, module in members)
        found.append(Unit(first.name, ACTIVATION, origin(first), quantizer.bitwidth, 0, places, quantizer))
    return found


@contextmanager
def only(every: Sequence[Unit], chosen: Iterable[Unit]) -> Iterator[None]:
    """Takes every grid but the chosen ones out of the simulation, and puts all of them back."""
    kept = {unit.name for unit in chosen}
    try:
        for unit in every:
            for owner, key in unit.places:
                owner[key] = unit.quantizer if unit.name in kept else None
        yield
    finally:
        for unit in every:
            for owner, key in unit.places:
                owner[key] = unit.quantizer


@torch.no_grad()
def sensitivity(
    simulation: Simulation,
    inputs: NetworkInputs,
    step_n: Tensor,
    progress: Progress | None = None,
    batch_size: int = 16,
) -> list[Row]:
    """A row for every grid of a calibrated simulation, on recorded calls of the steps `step_n`.

    Weights are rounded to nearest: a simulation whose integers were chosen otherwise has no float weights any more.
    """
    every = units(simulation)
    answer = _answering(simulation, inputs, batch_size)
    with only(every, ()):
        reference = answer()
    if progress:
        progress.start(len(every), "grids", "sensitivity")
    rows = []
    for unit in every:
        with only(every, (unit,)):
            rows.append(_row(unit, reference, answer(), step_n))
        if progress:
            progress.advance(1)
    return rows


def _answering(simulation: Simulation, inputs: NetworkInputs, batch_size: int) -> Callable[[], Tensor]:
    """The velocities of the target panel: nobody reads the other one."""
    columns = inputs.sample_bchw.shape[3] // 2
    starts = range(0, len(inputs), batch_size)
    return lambda: torch.cat([simulation(inputs[start : start + batch_size])[..., :columns] for start in starts])


def _row(unit: Unit, reference: Tensor, found: Tensor, step_n: Tensor) -> Row:
    noise = (found - reference).double().pow(2).sum() / reference.double().pow(2).sum()
    steps = (step_n == step for step in range(int(step_n.max()) + 1))
    by_step = tuple(sqnr_db(reference[rows], found[rows]) for rows in steps)
    path = unit.origin.split(" ")[0]
    return Row(
        name=unit.name,
        kind=unit.kind,
        origin=unit.origin,
        block=block_of(path),
        bits=unit.bits,
        numbers=unit.numbers,
        noise_share=float(noise),
        sqnr_db=sqnr_db(reference, found),
        by_step_db=by_step,
    )


def block_of(path: str) -> str:
    """The block of a U-Net that a module lies in: "down_blocks.0", "mid_block", or its own name outside of all."""
    first, *rest = path.split(".")
    return f"{first}.{rest[0]}" if rest and rest[0].isdigit() else first


def total_noise(rows: Iterable[Row]) -> float:
    """Noise shares added up: that of all these grids together, as far as their errors are independent."""
    return sum(row.noise_share for row in rows)


def widened(rows: Iterable[Row], extra_mb: float) -> tuple[str, ...]:
    """The weights that should have 16 bits where `extra_mb` may be spent on it, dearest noise per byte first.

    Widening takes nearly all of a weight's noise away (48 dB of it) and costs a byte a weight, so that the knapsack is
    filled by noise per byte; what does not fit any more is passed over.
    """
    weights = [row for row in rows if row.kind == WEIGHT and row.bits == 8 and row.noise_share > 0]
    weights.sort(key=lambda row: row.noise_share / row.numbers, reverse=True)
    left, chosen = extra_mb * 1e6, []
    for row in weights:
        if row.numbers <= left:
            chosen.append(row.name)
            left -= row.numbers
    return tuple(chosen)


def save(rows: Sequence[Row], path: Path) -> None:
    """As JSON, a row a grid."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
