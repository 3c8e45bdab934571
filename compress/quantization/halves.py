"""The autoencoder's quantized halves as files beside the U-Net's, and the autoencoder that runs them.

quantized/vae_encoder.onnx and vae_decoder.onnx with their encodings; vae_encoder_<soc>_<hash>.bin and its wrapper, once
they are compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.errors import UserError
from compress.quantization.aimet import Simulation
from compress.quantization.autoencoder import (
    DECODER,
    ENCODER,
    HALVES,
    OUTPUT_OF,
    HostAutoencoder,
    NamedTensors,
    half_graph,
    latent_input,
    picture_input,
)
from compress.quantization.grids import Encodings
from compress.quantization.htp import SOCS, HtpTarget, session
from compress.quantization.htp_context import compile_context
from compress.quantization.onnx_writer import write_onnx
from compress.quantization.parity import sqnr_db
from compress.quantization.qairt import FOLDER as QAIRT
from compress.quantization.qairt import write_qairt
from compress.quantization.residency import read_residency
from compress.quantization.rules import load_rules
from compress.quantization.runtime import QUANTIZED, SessionRunner, cpu_session
from students.system import DiffusionSystem

Forward = Callable[[NamedTensors], Tensor]


@torch.no_grad()
def quantize_halves(
    system: DiffusionSystem,
    pictures_bchw: Tensor,
    latents_bchw: Tensor,
    arch: int,
    headroom_ratio: float,
    folder: Path,
    qairt: bool = False,
) -> dict[str, float]:
    """Calibrates both halves, on pictures in [-1, 1] and on latents that the denoiser ends in, and writes their files,
    with `qairt` also those for Qualcomm's converter.

    Half of either is kept from calibration; returns the SQNR in dB of simulation against float on that half.
    """
    metrics = {}
    given = {ENCODER: picture_input(pictures_bchw), DECODER: latent_input(latents_bchw)}
    for half, inputs in given.items():
        middle = len(inputs) // 2
        simulation = Simulation(half_graph(system.vae, half, system.latent_shape), load_rules(arch))
        simulation.calibrate(inputs[:middle], headroom_ratio=headroom_ratio)
        encodings = simulation.encodings()
        encodings.save(folder / f"{half}.encodings.json")
        write_onnx(simulation.float_graph, encodings, folder / f"{half}.onnx", output=OUTPUT_OF[half])
        if qairt:
            write_qairt(simulation.float_graph, encodings, folder / QAIRT, half, output=OUTPUT_OF[half])
        expected = simulation.float_graph(*inputs[middle:].tensors())
        metrics[f"{half}_aimet_vs_float_sqnr_db"] = sqnr_db(expected, simulation(inputs[middle:]))
        metrics[f"{half}_size_mb"] = (folder / f"{half}.onnx").stat().st_size / 1e6
    return metrics


def has_halves(folder: Path) -> bool:
    """Does this artefact hold a quantized autoencoder?"""
    return all((folder / QUANTIZED / f"{half}.onnx").is_file() for half in HALVES)


def with_runtime(system: DiffusionSystem, folder: Path, runtime: str, arch: int = 75) -> DiffusionSystem:
    """The system with its autoencoder computed by `runtime` too, where the artefact in `folder` has it quantized."""
    if runtime == "torch" or not has_halves(folder):
        return system
    openers: Mapping[str, Callable[[str], Forward]] = {
        "simulation": lambda half: simulated_half(system, folder, half, arch),
        "onnx": lambda half: SessionRunner(cpu_session(folder / QUANTIZED / f"{half}.onnx")),
        "htp": lambda half: emulated_half(folder, half),
    }
    forwards = {half: openers[runtime](half) for half in HALVES}
    return system.with_vae(HostAutoencoder(system.vae.config, forwards[ENCODER], forwards[DECODER]))


def simulated_half(system: DiffusionSystem, folder: Path, half: str, arch: int) -> Simulation:
    """AIMET's simulation of one half, from its encodings."""
    simulation = Simulation(half_graph(system.vae, half, system.latent_shape), load_rules(arch))
    simulation.load(Encodings.load(folder / QUANTIZED / f"{half}.encodings.json"))
    return simulation


def emulated_half(folder: Path, half: str) -> SessionRunner:
    """The compiled half on the emulator; UserError where there is none."""
    for soc_model, (soc, _) in SOCS.items():
        for wrapper in sorted(folder.glob(f"{half}_{soc}_*.onnx")):
            made: Any = session(wrapper, HtpTarget(soc_model))
            return SessionRunner(made)
    remedy = "Use the artefact of stage deploy, for example runs/scenes/90-deploy."
    raise UserError.of(f"there is no compiled {half}", str(folder), remedy)


@torch.no_grad()
def deploy_halves(system: DiffusionSystem, pictures_bchw: Tensor, folder: Path, target: HtpTarget) -> dict[str, float]:
    """Compiles both halves of the artefact in `folder` into it, and compares emulator and simulation on pictures.

    `float_ops_count` and the like are those of both graphs together.
    """
    metrics: dict[str, float] = {}
    latents_bchw = system.encode_image(pictures_bchw)
    given = {ENCODER: picture_input(pictures_bchw), DECODER: latent_input(latents_bchw)}
    for half, inputs in given.items():
        compiled = compile_context(folder / QUANTIZED / f"{half}.onnx", folder, target, name=half)
        for name, count in read_residency(compiled.graph_json).metrics().items():
            metrics[name] = metrics.get(name, 0) + count
        simulated = simulated_half(system, folder, half, target.arch)(inputs)
        emulated = SessionRunner(session(compiled.wrapper, target))(inputs)
        metrics[f"{half}_htp_vs_aimet_sqnr_db"] = sqnr_db(simulated, emulated)
        metrics[f"{half}_binary_mb"] = compiled.binary.stat().st_size / 1e6
    return metrics
