"""DreamLite's U-Net from float to a context binary of the HTP, on random weights, step by step.

What is measured of the result does not depend on training: where the compiler puts every operator, in what types, and
how well emulator, simulation and float agree on one forward. The norms' weights are drawn around 1, because AIMET and
the HTP treat an identity kindly.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.benchmarks.meter import Cost, Steps
from compress.errors import UserError
from compress.quantization.aimet import Simulation, register_ops
from compress.quantization.compile_memory import check_memory
from compress.quantization.graph import behind_sinusoids
from compress.quantization.grids import with_equal_weights
from compress.quantization.host import IoSpec, NetworkInputs, network_inputs
from compress.quantization.htp import CHIPS, HtpTarget, qnn_provider
from compress.quantization.htp_context import Compiled, compile_context, compile_shared
from compress.quantization.onnx_writer import write_onnx
from compress.quantization.parity import sqnr_db
from compress.quantization.passes import htp_graph
from compress.quantization.residency import nodes_on_htp_percent, read_residency
from compress.quantization.rules import load_rules
from compress.quantization.runtime import EmulatedUNet
from compress.stages.context import Progress
from students.presets import dreamlite_full
from students.spec import StudentSpec, with_heads
from teachers.base import Condition

TOKENS, PADDED_TOKENS = 77, 20
PX_A_LATENT = 8  # of the autoencoder
# The steps from a float network to its binary
TO_BINARY = ("import_aimet", "graph", "simulator", "calibrate", "write", "compile")


def dreamlite_small() -> StudentSpec:
    """DreamLite's topology with everything that costs time made small: 8 M parameters."""
    narrow = replace(dreamlite_full(), widths=(64, 128, 192), layers_per_block=(1, 1, 1), transformer_layers=(1, 1, 2))
    return with_heads(replace(narrow, cross_dim=192, text_dim=96, size_dim=32, sample_size=16))


SCALES = {"full": dreamlite_full, "small": dreamlite_small}


@dataclass(frozen=True)
class Quantization:
    """Figures of one network, or of the same at several sizes in one binary: the worst of them, float operators and
    conversions of all. `steps` say what each step cost, `to_binary` what those of TO_BINARY cost together.

    The calibration contains one float forward; `float_forward` is one by itself.
    """

    px: tuple[int, ...]
    soc: str
    parameters: int
    nodes_on_htp_percent: float
    float_ops: int
    unrequested_converts: int
    sqnr_emulator_simulation_db: float | None
    sqnr_simulation_float_db: float
    binary_mb: float
    compile_predicted_gb: float
    steps: Steps

    def as_json(self) -> dict[str, Any]:
        """One flat row, and the steps."""
        found = {field.name: _rounded(getattr(self, field.name)) for field in fields(self) if field.name != "steps"}
        found["px"] = list(self.px) if len(self.px) > 1 else self.px[0]
        costs = {name: cost.as_json() for name, cost in self.steps.costs.items()}
        return found | {
            "steps": costs,
            "to_binary": self.to_binary().as_json(),
            **self.steps.total().as_json(),
        }

    def to_binary(self) -> Cost:
        """From the float network to its binary: of all sizes together."""
        return self.steps.total(tuple(name for name in self.steps.costs if name.partition(" ")[0] in TO_BINARY))

    def words(self) -> str:
        """The same for people."""
        cost = self.to_binary()
        emulated = self.sqnr_emulator_simulation_db
        sizes = " and ".join(f"{px} px" for px in self.px)
        lines = [
            f"{self.parameters:,} parameters, {sizes}, {self.soc}: {self.binary_mb:.0f} MB in {cost.wall_s:.0f} s "
            f"with {cost.peak_rss_gb:.2f} GB of memory",
            f"{self.nodes_on_htp_percent:g} % of nodes on the HTP, {self.float_ops} float operators, "
            f"{self.unrequested_converts} conversions nobody asked for",
            f"simulation against float {self.sqnr_simulation_float_db:.1f} dB"
            + ("" if emulated is None else f", emulator against simulation {emulated:.1f} dB"),
            *(f"  {name:22} {c.wall_s:7.1f} s  {c.peak_rss_gb:6.2f} GB" for name, c in self.steps.costs.items()),
        ]
        return "\n".join(lines)


def quantization(
    work: Path, scale: str, px: Sequence[int], soc: str, emulate: bool, progress: Progress
) -> Quantization:
    """Everything, one step after the other; large files go into `work`. Several sizes share weights in one binary.

    UserError for a size or chip that it cannot do, and for emulating several sizes.
    """
    spec = SCALES[scale]()
    for side in px:
        check(spec, side)
    if emulate and len(px) > 1:
        remedy = "Give one size with --emulate; its graph is the same alone."
        raise UserError.of("the emulator cannot open a binary of several networks", "--emulate", remedy)
    target = HtpTarget(CHIPS[soc])
    qnn_provider()  # before any work: the wheel does not exist everywhere
    steps = Steps()
    with steps.step("import_aimet"):
        register_ops()
    sizes, parameters = _write(work, spec, px, target, steps, progress)
    gc.collect()  # the compiler gets the memory
    predicted_gb = sum(check_memory(size.model) or 0.0 for size in sizes)
    progress.message(f"compiling for {target.soc}, about {predicted_gb:.1f} GB of memory")
    compiled = _compile(work, sizes, target, steps)
    emulated_db = None
    if emulate:
        progress.message("one forward on the emulator")
        with steps.step("emulate"):
            emulated = EmulatedUNet(compiled[0].wrapper, sizes[0].io_spec, target.soc_model)
            emulated_db = sqnr_db(sizes[0].simulated, emulated.forward(sizes[0].measured))
    return Quantization(
        tuple(px),
        soc,
        parameters,
        **_residency(compiled),
        sqnr_emulator_simulation_db=emulated_db,
        sqnr_simulation_float_db=min(sqnr_db(size.expected, size.simulated) for size in sizes),
        compile_predicted_gb=predicted_gb,
        steps=steps,
    )


@dataclass(frozen=True)
class _Size:
    """What is left of one size once its file is written: no weights, so that all of them are freed."""

    model: Path
    io_spec: IoSpec
    measured: NetworkInputs
    expected: Tensor
    simulated: Tensor


def _write(
    work: Path, spec: StudentSpec, px: Sequence[int], target: HtpTarget, steps: Steps, progress: Progress
) -> tuple[list[_Size], int]:
    """All steps up to the QDQ files, and the number of parameters."""
    unet = network(spec)
    io_specs = [IoSpec.of_unet(dict(unet.config), (s // PX_A_LATENT,) * 2, TOKENS, text_bias=True) for s in px]
    labels = [f" {side} px" if len(px) > 1 else "" for side in px]
    simulations, expected = [], []
    for io_spec, label in zip(io_specs, labels, strict=True):
        progress.message(f"one forward in float, export and calibration{label}")
        with steps.step(f"float_forward{label}"), torch.no_grad():
            expected.append(behind_sinusoids(unet)(*inputs(io_spec, seed=2).tensors()))
        with steps.step(f"graph{label}"):
            graph = htp_graph(unet, io_spec)
        with steps.step(f"simulator{label}"):
            simulation = Simulation(graph, load_rules(target.arch))
        with steps.step(f"calibrate{label}"):
            simulation.calibrate(inputs(io_spec, seed=1), batch_size=1, headroom_ratio=1.1)
        simulations.append(simulation)
    encodings = [simulation.encodings() for simulation in simulations]
    if len(px) > 1:
        encodings = with_equal_weights(encodings)
    sizes = []
    for number, (simulation, label) in enumerate(zip(simulations, labels, strict=True)):
        if len(px) > 1:
            simulation.load(encodings[number])
        measured, model = inputs(io_specs[number], seed=2), work / f"unet{label.replace(' ', '_')}.onnx"
        progress.message(f"one forward in simulation, and the QDQ file{label}")
        with steps.step(f"simulate{label}"):
            simulated = simulation(measured)
        with steps.step(f"write{label}"):
            write_onnx(simulation.float_graph, encodings[number], model)
        sizes.append(_Size(model, io_specs[number], measured, expected[number], simulated))
    return sizes, sum(tensor.numel() for tensor in unet.parameters())


def _compile(work: Path, sizes: Sequence[_Size], target: HtpTarget, steps: Steps) -> list[Compiled]:
    """One binary of all sizes, its cost entered by size."""
    if len(sizes) == 1:
        compiled = compile_context(sizes[0].model, work, target)
        steps.add("compile", compiled.compile_s, compiled.peak_rss_gb)
        return [compiled]
    found = compile_shared({size.model.stem: size.model for size in sizes}, work, target)
    for name, compiled in found.items():
        label = name.removeprefix("unet").replace("_", " ")
        steps.add(f"compile{label}", compiled.compile_s, compiled.peak_rss_gb)
    return list(found.values())


def check(spec: StudentSpec, px: int) -> None:
    """UserError for a side that some level of the network cannot halve."""
    lattice = PX_A_LATENT * 2 ** (len(spec.widths) - 1)
    if px < lattice or px % lattice:
        raise UserError.of(f"px is {px}", "--px", f"Use a multiple of {lattice}, such as 512 or 1024.")


def network(spec: StudentSpec) -> Any:
    """The network with torch's initial weights, and norms drawn around 1 with biases around 0."""
    torch.manual_seed(0)
    unet = spec.build().eval().requires_grad_(False)
    for module in unet.modules():
        if "Norm" in type(module).__name__:
            for name, centre in (("weight", 1.0), ("bias", 0.0)):
                if getattr(module, name, None) is not None:
                    nn.init.normal_(getattr(module, name), centre, 0.2)
    return unet


def inputs(spec: IoSpec, seed: int) -> NetworkInputs:
    """One edit at a middle noise level, whose text ends in padding."""
    generator = torch.Generator().manual_seed(seed)
    channels, rows, columns = spec.latent_chw
    tokens, width = spec.tokens_td
    panels = torch.randn(2, channels, rows, columns // 2, generator=generator)
    condition = Condition(
        torch.randn(1, tokens, width, generator=generator),
        mask_bt=(torch.arange(tokens) < tokens - PADDED_TOKENS).float()[None],
        size_b2=torch.full((1, 2), float(rows * PX_A_LATENT)),
        source_bchw=panels[1:],
    )
    return network_inputs(spec, panels[:1], torch.tensor([0.6]), condition)


def _residency(compiled: Sequence[Compiled]) -> dict[str, Any]:
    found = [read_residency(one.graph_json) for one in compiled]
    return {
        "nodes_on_htp_percent": min(
            nodes_on_htp_percent(one.wrapper, residency) for one, residency in zip(compiled, found, strict=True)
        ),
        "float_ops": sum(len(residency.float_ops) for residency in found),
        "unrequested_converts": sum(len(residency.unrequested_converts) for residency in found),
        "binary_mb": compiled[0].binary.stat().st_size / 1e6,
    }


def _rounded(value: Any) -> Any:
    return round(value, 2) if isinstance(value, float) else value
