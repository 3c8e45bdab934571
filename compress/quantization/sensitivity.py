"""What every grid costs: the network in float but for one weight, or one tensor, and how far its output moves.

At 16 and 8 bits the errors are small and nearly independent, so that what grids cost together is close to the sum of
what each costs alone; `total_noise` of the rows tells how close. Units that share a grid are one row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.quantization.aimet import Simulation
from compress.quantization.graph import origin
from compress.quantization.host import Inputs
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
    """A grid: `parameter` of one module of the float graph, or the outputs of all the modules that share it."""

    name: str
    kind: str
    origin: str
    bits: int
    numbers: int
    modules: tuple[nn.Module, ...]
    parameter: str | None
    quantizer: Any

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The float graph computes with this grid and no other; afterwards it is as it was, whatever happened."""
        if self.parameter is None:
            hooks = [module.register_forward_hook(self._regrid) for module in self.modules]
            try:
                yield
            finally:
                for hook in hooks:
                    hook.remove()
            return
        (module,) = self.modules
        weight = module._parameters[self.parameter]
        assert weight is not None
        module._parameters[self.parameter] = nn.Parameter(self._on_grid(weight), requires_grad=False)
        try:
            yield
        finally:
            module._parameters[self.parameter] = weight

    def _on_grid(self, value: Tensor) -> Tensor:
        return self.quantizer(value.detach()).as_subclass(Tensor)

    def _regrid(self, module: nn.Module, operands: Any, result: Tensor) -> Tensor:
        return self._on_grid(result)


def units(simulation: Simulation) -> list[Unit]:
    """Every weight's grid and every tensor's, tied ones once, in the order of the network."""
    found: list[Unit] = []
    tied: dict[int, list[fx.Node]] = {}
    graph = simulation.float_graph
    for node, module in simulation.nodes():
        own = graph.get_submodule(str(node.target))
        for name, quantizer in module.param_quantizers.items():
            if quantizer is not None:
                size, full = getattr(own, name).numel(), f"{node.name}.{name}"
                found.append(Unit(full, WEIGHT, origin(node), quantizer.bitwidth, size, (own,), name, quantizer))
        tied.setdefault(id(simulation.grids[node.name]), []).append(node)
    for nodes in tied.values():
        first, quantizer = nodes[0], simulation.grids[nodes[0].name]
        modules = tuple(graph.get_submodule(str(node.target)) for node in nodes)
        found.append(Unit(first.name, ACTIVATION, origin(first), quantizer.bitwidth, 0, modules, None, quantizer))
    return found


@torch.no_grad()
def sensitivity(
    simulation: Simulation,
    inputs: Inputs,
    step_n: Tensor,
    progress: Progress | None = None,
    chosen: Collection[str] | None = None,
    batch_size: int = 16,
    pair: bool = True,
) -> list[Row]:
    """A row for every grid of a calibrated simulation (or the `chosen` ones), on recorded calls of the steps `step_n`.

    Of a U-Net's latent pair only the target's panel counts; `pair` is off for one that works on a single panel. One
    float forward a grid. Weights are rounded to nearest: ask before `rounding` has chosen integers otherwise, since
    then the graph has no float weights any more.
    """
    wanted = [unit for unit in units(simulation) if chosen is None or unit.name in chosen]
    answer = _answering(simulation.float_graph, inputs, batch_size, pair)
    reference, rows = answer(), []
    if progress:
        progress.start(len(wanted), "grids", "sensitivity")
    for unit in wanted:
        with unit.alone():
            rows.append(_row(unit, reference, answer(), step_n))
        if progress:
            progress.advance(1)
    return rows


def _answering(graph: fx.GraphModule, inputs: Inputs, batch_size: int, pair: bool) -> Callable[[], Tensor]:
    """What the network answers: of a latent pair the target panel, since nobody reads the other one."""
    panels = 2 if pair and "sample" in inputs.named() else 1
    starts = range(0, len(inputs), batch_size)

    def answer() -> Tensor:
        found = torch.cat([graph(*inputs[start : start + batch_size].tensors()) for start in starts])
        return found[..., : found.shape[-1] // panels]

    return answer


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
