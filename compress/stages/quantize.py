"""Stage `quantize`: the few-step student in W8A16, simulated by AIMET and written as a QDQ ONNX file.

The artefact is the parent's, unchanged, with a folder quantized/: encodings.json (AIMET's format), model.onnx,
rounded.safetensors (the integers chosen for the weights, where they are not the nearest ones), io_spec.json (what the
host computes, and in what shapes), calibration.safetensors (what was calibrated on) and, where they were asked for,
sensitivity.json (what every grid costs by itself) and qairt/ (the networks in float with AIMET's encodings).
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, fx

from compress.artifact import CARD, load_card
from compress.config.quantize import QuantizeConfig
from compress.data.calibration import CalibrationSet, record_trajectories
from compress.data.scenes.dataset import latent_batches
from compress.data.scenes.world import render
from compress.errors import UserError
from compress.evaluation.scenes_bench import edit_samples
from compress.generate import draw_noise, guidance_of, levels, sample_latents
from compress.judge import cost_of
from compress.quantization.ada_round import ada_round
from compress.quantization.aimet import Simulation
from compress.quantization.graph import check_supported
from compress.quantization.halves import quantize_halves, with_runtime
from compress.quantization.host import HostDenoiser, IoSpec, NetworkInputs
from compress.quantization.onnx_writer import write_onnx
from compress.quantization.parity import answers, sqnr_db, trajectory_parity
from compress.quantization.passes import htp_graph
from compress.quantization.qairt import FOLDER as QAIRT
from compress.quantization.qairt import write_qairt
from compress.quantization.ranges import Ranges, layers
from compress.quantization.rounding import correct_biases, nearest, put, round_layers
from compress.quantization.rules import load_rules
from compress.quantization.runtime import QUANTIZED, ROUNDED, OnnxUNet, float_unet
from compress.quantization.scoring import save_sample_pictures, scores
from compress.quantization.sensitivity import FILE as SENSITIVITY
from compress.quantization.sensitivity import KINDS, Row, save, sensitivity, total_noise, widened
from compress.stages.context import Progress, StageContext, StageResult
from compress.stages.parts import copy_parts
from students.system import PARTS, DiffusionSystem, to_tensor
from teachers.base import Condition

CHECKPOINT_PARTS = ("unet", *PARTS, "sampling.json")
HELD_OUT_SEED = 9173  # of the calibration's prompts and noise; no other stage draws from it


def run(config: QuantizeConfig, ctx: StageContext) -> StageResult:
    """Records, calibrates, writes and measures. Needs AIMET and ONNX, and runs on the CPU."""
    assert ctx.parent is not None
    system = DiffusionSystem.load(ctx.parent)
    unet: Any = system.unet
    check_supported(unet)
    if not system.edits:
        remedy = "Quantize a student, for example runs/scenes/70-distill."
        raise UserError.of("its network only generates, and this stage records edits too", str(ctx.parent), remedy)
    copy_parts(ctx.parent, ctx.out, CHECKPOINT_PARTS)
    spec = io_spec(system, config.text_bias)
    folder = ctx.out / QUANTIZED
    folder.mkdir()

    ctx.progress.message(f"recording {config.generations} generations and {config.edits} edits, every step")
    seed = HELD_OUT_SEED + config.seed
    recorded, held_out = record(system, spec, config.generations, config.edits, config.held_out, seed)
    recorded.save(folder / "calibration.safetensors", held_out)
    spec.save(folder / "io_spec.json")
    forms = quantize(config, system, spec, recorded, held_out, folder, ctx.progress)
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
    if config.autoencoder:
        pictures, latents = system_ends(config, system)
        metrics |= quantize_halves(
            system, pictures, latents, config.htp_arch, config.headroom_ratio, folder, config.qairt
        )
    whole = with_runtime(system, ctx.out, "onnx")
    images = scored_images(ctx.parent) if config.score_images is None else config.score_images
    if images:
        metrics |= scores(whole, forms.onnx, images, ctx.progress, folder=ctx.out)
    save_sample_pictures(ctx.out, whole, forms.onnx)
    curve = [(float(step), value) for step, value in enumerate(aimet_vs_float.by_step_db)]
    return StageResult(metrics, {"aimet_vs_float_sqnr_db_by_step": curve}, spec=dict(unet.config))


def io_spec(system: DiffusionSystem, text_bias: bool = False) -> IoSpec:
    """The network's inputs at the system's own latent size and token length."""
    _, rows, columns = system.latent_shape
    tokens = system.text_encoder.config.max_position_embeddings
    unet: Any = system.unet
    return IoSpec.of_unet(dict(unet.config), (rows, columns), tokens, text_bias)


def scored_images(parent: Path) -> int:
    """How many pictures of a kind the parent's own score rests on; 0 where it has none."""
    if not (parent / CARD).exists():
        return 0
    return int(load_card(parent).metrics.get("scored_images") or 0)


def record(
    system: DiffusionSystem, spec: IoSpec, generations: int, edits: int, held_out: int, seed: int
) -> tuple[CalibrationSet, list[int]]:
    """Every call of `generations` + `edits` trajectories, and the numbers of those kept out: the last of either."""
    parts: list[Condition] = []
    kept: list[int] = []
    for task, count in (("t2i", generations), ("edit", edits)):
        if count:
            parts += [condition for _, condition in latent_batches(system, task, count, seed)]
            total = sum(len(part) for part in parts)
            kept += range(total - held_out, total)
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
    return recorded, kept


def system_ends(config: QuantizeConfig, system: DiffusionSystem) -> tuple[Tensor, Tensor]:
    """What the autoencoder meets: pictures in [-1, 1], and latents as the student's own sampling ends in them."""
    seed, count = HELD_OUT_SEED + config.seed, config.generations + config.edits
    samples = edit_samples(count, seed)
    pictures_bchw = to_tensor(render([sample.source for sample in samples]))
    condition = system.encode_text([sample.instruction.tagged for sample in samples])
    if system.edits:
        condition = replace(condition, source_bchw=system.encode_image(pictures_bchw))
    noise_bchw = draw_noise(system.latent_shape, seed, range(count))
    return pictures_bchw, sample_latents(system, condition, noise_bchw, system.sampling, seed=seed)


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
    progress: Progress,
) -> Forms:
    """Rewrites, calibrates and rounds on all trajectories but `held_out`, and writes the files of quantized/."""
    start = time.perf_counter()
    unet: Any = system.unet
    graph = htp_graph(unet, spec)
    used = recorded.trajectories(sorted(set(recorded.trajectory_n.tolist()) - set(held_out))).inputs
    simulation, metrics = calibrated(config, graph, used)
    if config.sensitivity or config.wide_weights_mb:
        rows = measure_grids(simulation, recorded.trajectories(held_out), folder, progress)
        metrics |= {f"{kind}_noise_share": total_noise(r for r in rows if r.kind == kind) for kind in KINDS}
        wide = widened(rows, config.wide_weights_mb)
        if wide:
            simulation, again = calibrated(config, graph, used, wide)
            metrics |= {**again, "wide_weights_count": len(wide)}
    if chosen := rounded(config, simulation, used):
        save_file(chosen, folder / ROUNDED)
    encodings = simulation.encodings()
    encodings.save(folder / "encodings.json")
    write_onnx(graph, encodings, folder / "model.onnx")
    if config.qairt:
        write_qairt(graph, encodings, folder / QAIRT, "unet")
    metrics["size_mb"] = (folder / "model.onnx").stat().st_size / 1e6
    metrics["quantize_s"] = time.perf_counter() - start
    onnx = OnnxUNet(folder / "model.onnx", spec)
    return Forms(float_unet(system.unet, spec), HostDenoiser(spec, simulation), onnx, metrics)


def calibrated(
    config: QuantizeConfig, graph: fx.GraphModule, used: NetworkInputs, wide: Collection[str] = ()
) -> tuple[Simulation, dict[str, float]]:
    """The simulation of a graph, calibrated on these calls, with 16 bits for the weights `wide`."""
    ranges = Ranges(config.activation_ranges, config.weight_ranges)
    simulation = Simulation(graph, load_rules(config.htp_arch), wide, ranges)
    guarded = simulation.calibrate(used, config.batch_size, config.headroom_ratio)
    return simulation, {"accumulator_guards_count": guarded}


def rounded(config: QuantizeConfig, simulation: Simulation, used: NetworkInputs) -> dict[str, Tensor]:
    """Puts the weights' integers and biases into the simulation as configured, and returns them; none where every
    weight is rounded to nearest by its quantizer."""
    if config.rounding == "compensated":
        return round_layers(simulation, used, config.batch_size)
    if config.rounding == "nearest" and not config.bias_correction:
        return {}
    if config.rounding == "ada_round":
        chosen = ada_round(simulation, used, config.seed)
    else:
        chosen = {f"{node.name}.weight": nearest(module) for node, module in layers(simulation)}
    if config.bias_correction:
        chosen = correct_biases(simulation, used, chosen)
    put(simulation, chosen)
    return chosen


def measure_grids(simulation: Simulation, measured: CalibrationSet, folder: Path, progress: Progress) -> list[Row]:
    """What every grid costs on calls that calibration has not seen; also written into `folder`."""
    rows = sensitivity(simulation, measured.inputs, measured.step_n, progress)
    save(rows, folder / SENSITIVITY)
    return rows
