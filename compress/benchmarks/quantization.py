"""DreamLite's U-Net from float to a context binary of the HTP, on random weights, step by step.

What is measured of the result does not depend on training: where the compiler puts every operator, in what types, and
how well emulator, simulation and float agree on one forward. The norms' weights are drawn around 1, because AIMET and
the HTP treat an identity kindly.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.benchmarks.meter import Steps
from compress.errors import UserError
from compress.quantization.aimet import Simulation
from compress.quantization.graph import behind_sinusoids
from compress.quantization.host import IoSpec, NetworkInputs, network_inputs
from compress.quantization.htp import CHIPS, Compiled, HtpTarget, compile_context, qnn_provider
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
TO_BINARY = ("graph", "simulator", "calibrate", "write", "compile")  # the steps from a float network to its binary


def dreamlite_small() -> StudentSpec:
    """DreamLite's topology with everything that costs time made small: 8 M parameters."""
    narrow = replace(dreamlite_full(), widths=(64, 128, 192), layers_per_block=(1, 1, 1), transformer_layers=(1, 1, 2))
    return with_heads(replace(narrow, cross_dim=192, text_dim=96, size_dim=32, sample_size=16))


SCALES = {"full": dreamlite_full, "small": dreamlite_small}


@dataclass(frozen=True)
class Quantization:
    """Figures of one network; `steps` say what each step cost, `to_binary` what those of TO_BINARY cost together.

    The simulator's construction and its calibration contain one float forward each; `float_forward` is one by itself.
    """

    px: int
    soc: str
    parameters: int
    nodes_on_htp_percent: float
    float_ops: int
    unrequested_converts: int
    sqnr_emulator_simulation_db: float | None
    sqnr_simulation_float_db: float
    binary_mb: float
    steps: Steps

    def as_json(self) -> dict[str, Any]:
        """One flat row, and the steps."""
        found = {field.name: _rounded(getattr(self, field.name)) for field in fields(self) if field.name != "steps"}
        costs = {name: cost.as_json() for name, cost in self.steps.costs.items()}
        return found | {
            "steps": costs,
            "to_binary": self.steps.total(TO_BINARY).as_json(),
            **self.steps.total().as_json(),
        }

    def words(self) -> str:
        """The same for people."""
        cost = self.steps.total(TO_BINARY)
        emulated = self.sqnr_emulator_simulation_db
        lines = [
            f"{self.parameters:,} parameters, {self.px} px, {self.soc}: {self.binary_mb:.0f} MB in {cost.wall_s:.0f} s "
            f"with {cost.peak_rss_gb:.2f} GB of memory",
            f"{self.nodes_on_htp_percent:g} % of nodes on the HTP, {self.float_ops} float operators, "
            f"{self.unrequested_converts} conversions nobody asked for",
            f"simulation against float {self.sqnr_simulation_float_db:.1f} dB"
            + ("" if emulated is None else f", emulator against simulation {emulated:.1f} dB"),
            *(f"  {name:14} {c.wall_s:7.1f} s  {c.peak_rss_gb:6.2f} GB" for name, c in self.steps.costs.items()),
        ]
        return "\n".join(lines)


def quantization(work: Path, scale: str, px: int, soc: str, emulate: bool, progress: Progress) -> Quantization:
    """Everything, one step after the other; large files go into `work`. UserError for a size or chip it cannot do."""
    spec = SCALES[scale]()
    check(spec, px)
    target = HtpTarget(CHIPS[soc])
    qnn_provider()  # before any work: the wheel does not exist everywhere
    steps, model = Steps(), work / "model.onnx"
    io_spec, measured, expected, simulated, parameters = _write(spec, px, target, model, steps, progress)
    gc.collect()  # the compiler gets the memory
    progress.message(f"compiling for {target.soc}")
    compiled = compile_context(model, work, target)
    steps.add("compile", compiled.compile_s, compiled.peak_rss_gb)
    emulated_db = None
    if emulate:
        progress.message("one forward on the emulator")
        with steps.step("emulate"):
            emulated_db = sqnr_db(
                simulated, EmulatedUNet(compiled.wrapper, io_spec, target.soc_model).forward(measured)
            )
    return Quantization(
        px,
        soc,
        parameters,
        **_residency(compiled),
        sqnr_emulator_simulation_db=emulated_db,
        sqnr_simulation_float_db=sqnr_db(expected, simulated),
        steps=steps,
    )


def _write(
    spec: StudentSpec, px: int, target: HtpTarget, model: Path, steps: Steps, progress: Progress
) -> tuple[IoSpec, NetworkInputs, Tensor, Tensor, int]:
    """All steps up to the QDQ file; what is returned holds no weights, so that all of them are freed."""
    unet = network(spec)
    side = px // PX_A_LATENT
    io_spec = IoSpec.of_unet(dict(unet.config), (side, side), TOKENS, text_bias=True)
    observed, measured = inputs(io_spec, seed=1), inputs(io_spec, seed=2)
    progress.message("one forward in float")
    with steps.step("float_forward"), torch.no_grad():
        expected = behind_sinusoids(unet)(*measured.tensors())
    progress.message("exporting and rewriting the graph")
    with steps.step("graph"):
        graph = htp_graph(unet, io_spec)
    with steps.step("simulator"):
        simulation = Simulation(graph, load_rules(target.arch))
    progress.message("calibrating")
    with steps.step("calibrate"):
        simulation.calibrate(observed, batch_size=1, headroom_ratio=1.1)
    progress.message("one forward in simulation")
    with steps.step("simulate"):
        simulated = simulation(measured)
    progress.message("writing the QDQ file")
    with steps.step("write"):
        write_onnx(graph, simulation.encodings(), model)
    return io_spec, measured, expected, simulated, sum(tensor.numel() for tensor in unet.parameters())


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


def _residency(compiled: Compiled) -> dict[str, Any]:
    residency = read_residency(compiled.graph_json)
    return {
        "nodes_on_htp_percent": nodes_on_htp_percent(compiled.wrapper, residency),
        "float_ops": len(residency.float_ops),
        "unrequested_converts": len(residency.unrequested_converts),
        "binary_mb": compiled.binary.stat().st_size / 1e6,
    }


def _rounded(value: Any) -> Any:
    return round(value, 2) if isinstance(value, float) else value
