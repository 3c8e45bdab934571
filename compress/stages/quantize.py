"""Stage `quantize`: the few-step student in W8A16, simulated by AIMET and written as a QDQ ONNX file.

The artefact is the parent's, unchanged, with a folder quantized/: encodings.json (AIMET's format), model.onnx,
rounded.safetensors (the integers chosen for the weights, where they are not the nearest ones), io_spec.json (what the
host computes, and in what shapes) and calibration.safetensors (what was calibrated on).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from compress.artifact import CARD, load_card
from compress.config.quantize import QuantizeConfig
from compress.data.calibration import CalibrationSet, record_trajectories
from compress.data.scenes.dataset import latent_batches
from compress.generate import guidance_of, levels
from compress.judge import cost_of
from compress.quantization.aimet import Simulation
from compress.quantization.graph import check_supported
from compress.quantization.host import HostDenoiser, IoSpec
from compress.quantization.onnx_writer import write_onnx
from compress.quantization.parity import answers, sqnr_db, trajectory_parity
from compress.quantization.passes import htp_graph
from compress.quantization.rounding import round_layers
from compress.quantization.rules import load_rules
from compress.quantization.runtime import QUANTIZED, ROUNDED, OnnxUNet, float_unet
from compress.quantization.scoring import save_sample_pictures, scores
from compress.stages.context import StageContext, StageResult
from compress.stages.parts import copy_parts
from students.system import PARTS, DiffusionSystem
from teachers.base import Condition

CHECKPOINT_PARTS = ("unet", *PARTS, "sampling.json")
HELD_OUT_SEED = 9173  # of the calibration's prompts and noise; no other stage draws from it


def run(config: QuantizeConfig, ctx: StageContext) -> StageResult:
    """Records, calibrates, writes and measures. Needs AIMET and ONNX, and runs on the CPU."""
    assert ctx.parent is not None
    system = DiffusionSystem.load(ctx.parent)
    unet: Any = system.unet
    check_supported(unet)
    copy_parts(ctx.parent, ctx.out, CHECKPOINT_PARTS)
    spec = io_spec(system)
    folder = ctx.out / QUANTIZED
    folder.mkdir()

    ctx.progress.message(f"recording {config.generations} generations and {config.edits} edits, every step")
    recorded, held_out = record(config, system, spec)
    recorded.save(folder / "calibration.safetensors", held_out)
    spec.save(folder / "io_spec.json")
    forms = quantize(config, system, spec, recorded, held_out, folder)
    measured = recorded.trajectories(held_out)
    parity = answers({"float": forms.unquantized, "aimet": forms.simulation, "onnx": forms.onnx}, measured.inputs)
    aimet_vs_float = trajectory_parity(parity["float"], parity["aimet"], measured.step_n)
    metrics = {
        **cost_of(ctx.out),
        **forms.metrics,
        "aimet_vs_float_sqnr_db": aimet_vs_float.overall_db,
        "onnx_vs_aimet_sqnr_db": sqnr_db(parity["aimet"], parity["onnx"]),
        "calibration_calls_count": len(recorded) - len(measured),
    }
    ctx.progress.message(f"W8A16 simulation agrees with float to {aimet_vs_float.overall_db:.1f} dB")
    images = scored_images(ctx.parent) if config.score_images is None else config.score_images
    if images:
        metrics |= scores(system, forms.onnx, images, ctx.progress)
    save_sample_pictures(ctx.out, system, forms.onnx)
    curve = [(float(step), value) for step, value in enumerate(aimet_vs_float.by_step_db)]
    return StageResult(metrics, {"aimet_vs_float_sqnr_db_by_step": curve}, spec=dict(unet.config))


def io_spec(system: DiffusionSystem) -> IoSpec:
    """The network's inputs at the system's own latent size and token length."""
    _, rows, columns = system.latent_shape
    tokens = system.text_encoder.config.max_position_embeddings
    unet: Any = system.unet
    return IoSpec.of_unet(dict(unet.config), (rows, columns), tokens)


def scored_images(parent: Path) -> int:
    """How many pictures of a kind the parent's own score rests on; 0 where it has none."""
    if not (parent / CARD).exists():
        return 0
    return int(load_card(parent).metrics.get("scored_images") or 0)


def record(config: QuantizeConfig, system: DiffusionSystem, spec: IoSpec) -> tuple[CalibrationSet, list[int]]:
    """Every call of `generations` + `edits` trajectories, and the numbers of those held out: the last of either."""
    seed = HELD_OUT_SEED + config.seed
    parts: list[Condition] = []
    held_out: list[int] = []
    for task, count in (("t2i", config.generations), ("edit", config.edits)):
        if count:
            parts += [condition for _, condition in latent_batches(system, task, count, seed)]
            total = sum(len(part) for part in parts)
            held_out += range(total - config.held_out, total)
    condition = Condition.cat(parts)
    generator = torch.Generator().manual_seed(seed)
    noise_bchw = torch.randn((len(condition), *system.latent_shape), generator=generator)
    guidance = guidance_of(system.sampling, system.encode_text([""]))
    recorded = record_trajectories(
        system.denoiser,
        spec,
        noise_bchw,
        condition,
        levels(system.sampling),
        guidance,
        system.sampling.stochastic,
        generator,
    )
    return recorded, held_out


@dataclass(frozen=True)
class Forms:
    """The network in float, simulated and as ONNX, with what making them cost."""

    unquantized: HostDenoiser
    simulation: HostDenoiser
    onnx: OnnxUNet
    metrics: dict[str, float]


def quantize(
    config: QuantizeConfig,
    system: DiffusionSystem,
    spec: IoSpec,
    recorded: CalibrationSet,
    held_out: list[int],
    folder: Path,
) -> Forms:
    """Rewrites, calibrates and rounds on all trajectories but `held_out`, and writes the files of quantized/."""
    start = time.perf_counter()
    unet: Any = system.unet
    graph = htp_graph(unet, spec)
    simulation = Simulation(graph, load_rules(config.htp_arch))
    used = recorded.trajectories(sorted(set(recorded.trajectory_n.tolist()) - set(held_out)))
    widened = simulation.calibrate(used.inputs, config.batch_size, config.headroom_ratio)
    if config.rounding == "compensated":
        save_file(round_layers(simulation, used.inputs, config.batch_size), folder / ROUNDED)
    encodings = simulation.encodings()
    encodings.save(folder / "encodings.json")
    write_onnx(graph, encodings, folder / "model.onnx")
    size_mb = (folder / "model.onnx").stat().st_size / 1e6
    metrics = {
        "size_mb": size_mb,
        "accumulator_guards_count": widened,
        "quantize_s": time.perf_counter() - start,
    }
    onnx = OnnxUNet(folder / "model.onnx", spec)
    return Forms(float_unet(system.unet, spec), HostDenoiser(spec, simulation), onnx, metrics)
