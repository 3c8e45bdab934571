"""Where emulator and simulation part: the network cut off behind a layer, compiled, and compared there.

A layer alone in a graph of its own proves little, since what the compiler gets wrong is fused neighbours. So the
network is compiled from its inputs up to the layer in question, which becomes the output. What a cut costs is a
compilation, seconds for a small network; `first_divergence` needs only as many as halving the network takes.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from compress.data.calibration import CalibrationSet
from compress.kept import Kept
from compress.quantization.aimet import Simulation
from compress.quantization.graph import module_of, origin, placeholders, refresh
from compress.quantization.grids import Encodings
from compress.quantization.host import HostDenoiser, NetworkInputs
from compress.quantization.htp import HtpTarget, session
from compress.quantization.htp_context import compile_context
from compress.quantization.onnx_writer import write_onnx
from compress.quantization.ops import NetworkInput, Permute, Requantize, Reshape
from compress.quantization.parity import sqnr_db
from compress.quantization.runtime import SessionRunner
from compress.stages.context import Progress

# They move values and compute nothing, and the compiler may fold one away that ends a graph.
_MOVING = (NetworkInput, Permute, Requantize, Reshape, torch.nn.Identity)


@dataclass(frozen=True)
class LayerParity:
    """SQNR in dB of the emulator against the simulation behind one layer, errors of all layers before it included."""

    name: str
    origin: str
    kind: str
    sqnr_db: float


def layer_names(graph_module: fx.GraphModule) -> list[str]:
    """The nodes that compute, in the order of the network: every place where it can be cut."""
    nodes = graph_module.graph.nodes
    return [node.name for node in nodes if node.op == "call_module" and not isinstance(module_of(node), _MOVING)]


def block_ends(graph_module: fx.GraphModule) -> list[str]:
    """The last layer of every module of a U-Net that has a number of its own ("down_blocks.0.resnets.1"), in order."""
    last: dict[str, str] = {}
    nodes = {node.name: node for node in graph_module.graph.nodes}
    for name in layer_names(graph_module):
        path = origin(nodes[name]).split(" ")[0].split(".")
        numbers = [place for place, part in enumerate(path) if part.isdigit()]
        last[".".join(path[: numbers[min(1, len(numbers) - 1)] + 1] if numbers else path[:1])] = name
    order = {name: place for place, name in enumerate(layer_names(graph_module))}
    return sorted(set(last.values()), key=order.__getitem__)


def cut(graph_module: fx.GraphModule, name: str) -> fx.GraphModule:
    """The network up to and including the node `name`, which it returns; inputs that it does not need are gone."""
    shortened = fx.GraphModule(graph_module, copy.deepcopy(graph_module.graph))
    (node,) = [node for node in shortened.graph.nodes if node.name == name]
    shortened.graph.output_node().args = (node,)
    refresh(shortened)
    for placeholder in placeholders(shortened):
        if not placeholder.users:
            shortened.graph.erase_node(placeholder)
    shortened.recompile()
    return shortened


class Prober:
    """Compiles cuts of one quantized network and measures them on one batch of inputs.

    What was measured is kept in `work`, for a prober of the same network that goes on there.
    """

    def __init__(
        self, simulation: Simulation, encodings: Encodings, inputs: NetworkInputs, target: HtpTarget, work: Path
    ) -> None:
        self.graph, self.encodings, self.inputs = simulation.float_graph, encodings, inputs
        self.target, self.work, self.kept = target, work, Kept(work / "layers")
        self.nodes = {node.name: node for node in self.graph.graph.nodes}
        self.simulated = simulated_values(simulation, inputs, layer_names(self.graph))

    def measure(self, name: str) -> LayerParity:
        """The parity behind layer `name`. RuntimeError where the compiler refuses the cut."""
        node = self.nodes[name]
        found = float(self.kept.tensor(name, lambda: torch.tensor(self._sqnr_db(name), dtype=torch.float64)))
        return LayerParity(name, origin(node), type(module_of(node)).__name__, found)

    def _sqnr_db(self, name: str) -> float:
        self.work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="cut-", dir=self.work) as folder:
            model = Path(folder) / "cut.onnx"
            write_onnx(cut(self.graph, name), self.encodings, model)
            compiled = compile_context(model, Path(folder), self.target)
            emulated = SessionRunner(session(compiled.wrapper, self.target))(self.inputs)
        expected = self.simulated[name]
        return sqnr_db(expected, emulated.reshape(expected.shape))

    def table(self, names: Iterable[str], progress: Progress | None = None, side_by_side: int = 1) -> list[LayerParity]:
        """The parity behind each of these layers; `side_by_side` of them are compiled and emulated at a time."""
        wanted = list(names)
        missing = [name for name in wanted if not self.kept.has(name)]
        if progress:
            progress.start(len(wanted), "layers", "emulator, layer by layer", done=len(wanted) - len(missing))
        with ThreadPoolExecutor(side_by_side) as pool:
            for _ in pool.map(self.measure, missing):
                if progress:
                    progress.advance(1)
        return [self.measure(name) for name in wanted]


@torch.no_grad()
def simulated_values(simulation: Simulation, inputs: NetworkInputs, names: Sequence[str]) -> dict[str, Tensor]:
    """What the simulation computes at these nodes."""
    wanted, found = set(names), {}
    by_name = {node.name: module for node, module in simulation.nodes()}
    hooks = []
    for name in wanted:

        def note(module: torch.nn.Module, operands: object, result: Tensor, name: str = name) -> None:
            found[name] = result.detach().as_subclass(Tensor).clone()

        hooks.append(by_name[name].register_forward_hook(note))
    try:
        simulation(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: found[name] for name in names}


def first_divergence(
    names: Sequence[str], measure: Callable[[str], LayerParity], least_db: float
) -> tuple[LayerParity, LayerParity | None] | None:
    """The first layer behind which parity is below `least_db`, and the last good one before it; None if all are good.

    By halving: behind a wrong layer all that follows is taken to be wrong as well.
    """
    if not names or (worst := measure(names[-1])).sqnr_db >= least_db:
        return None
    good, good_row, bad, bad_row = -1, None, len(names) - 1, worst
    while bad - good > 1:
        middle = (good + bad) // 2
        row = measure(names[middle])
        if row.sqnr_db >= least_db:
            good, good_row = middle, row
        else:
            bad, bad_row = middle, row
    return bad_row, good_row


class Layers:
    """The comparison for an artefact of stage quantize, on one recorded call; computes nothing before it is asked."""

    def __init__(self, simulated: HostDenoiser, quantized: Path, target: HtpTarget, work: Path) -> None:
        self.simulated, self.quantized, self.target, self.work = simulated, quantized, target, work

    @cached_property
    def prober(self) -> Prober:
        recorded, held_out = CalibrationSet.load(self.quantized / "calibration.safetensors")
        inputs = recorded.trajectories(held_out).inputs[:1]
        simulation: Any = self.simulated.forward
        encodings = Encodings.load(self.quantized / "encodings.json")
        return Prober(simulation, encodings, inputs, self.target, self.work)

    def table(self, which: str, progress: Progress, side_by_side: int = 1) -> list[LayerParity]:
        """Behind every block ("blocks"), every layer ("all"), or nothing ("none"), several at a time."""
        if which == "none":
            return []
        names = block_ends(self.prober.graph) if which == "blocks" else layer_names(self.prober.graph)
        return self.prober.table(names, progress, side_by_side)

    def where_they_part(self, least_db: float) -> str:
        """The first layer behind which they are further apart, in words."""
        found = first_divergence(layer_names(self.prober.graph), self.prober.measure, least_db)
        if found is None:
            return "behind no single layer of the first call"
        bad, good = found
        before = "" if good is None else f", {good.sqnr_db:.1f} dB before it"
        return f"first behind {bad.kind} {bad.name} of {bad.origin} ({bad.sqnr_db:.1f} dB{before})"
