"""Stage `deploy`: the quantized network compiled for one Snapdragon's HTP, and proved on the emulator.

The artefact is the parent's with unet_<soc>_<hash>.bin (the context binary), the ONNX file that wraps it, and
unet_qnn_graph.json, the compiler's own account of every node and its data types. Its folder bundle/ is what goes to a
phone: all that makes pictures, and nothing else (compress/bundle).
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.artifact import CARD, load_card
from compress.bundle.writing import FOLDER as BUNDLE
from compress.bundle.writing import write_bundle
from compress.config.quantize import DeployConfig
from compress.data.calibration import CalibrationSet
from compress.data.scenes.world import render
from compress.errors import UserError
from compress.evaluation.scenes_bench import edit_samples
from compress.evaluation.verdicts import copy_verdicts
from compress.judge import cost_of
from compress.kept import Kept
from compress.quantization.compile_memory import check_memory
from compress.quantization.halves import deploy_halves, has_halves, with_runtime
from compress.quantization.host import HostDenoiser, IoSpec
from compress.quantization.htp import HtpTarget, qnn_provider
from compress.quantization.htp_context import Compiled, compile_context
from compress.quantization.layerwise import Layers
from compress.quantization.parity import answers, trajectory_parity
from compress.quantization.residency import nodes_on_htp_percent, read_residency
from compress.quantization.runtime import QUANTIZED, EmulatedUNet, OnnxUNet, float_unet, simulated_unet
from compress.quantization.scoring import save_sample_pictures, scores
from compress.stages.context import Progress, StageContext, StageResult
from students.system import DiffusionSystem, to_tensor

SCORES = ("t2i", "edit", "overall")
PARITY_PICTURES, PARITY_SEED = 4, 5171  # no other stage draws from it
SEVERAL_BELOW_MB = 100  # every session of the emulator holds the network by itself


def run(config: DeployConfig, ctx: StageContext) -> StageResult:
    """Compiles, reads the compiled graph back, and compares emulator, simulation and float."""
    assert ctx.parent is not None
    target = HtpTarget(config.soc_model, config.optimization_mode)
    qnn_provider()  # before any work: the wheel does not exist everywhere
    quantized = quantized_folder(ctx.parent)
    shutil.copytree(ctx.parent, ctx.out, dirs_exist_ok=True, ignore=lambda _, names: {CARD, "samples"} & set(names))
    predicted_gb = check_memory(quantized / "model.onnx")
    needs = "" if predicted_gb is None else f", about {predicted_gb:.1f} GB of memory"
    ctx.progress.message(f"compiling for {target.soc} (HTP V{target.arch}, mode {target.optimization_mode}{needs})")
    compiled = compile_context(quantized / "model.onnx", ctx.out, target)
    metrics = {**cost_of(ctx.out), **residency_metrics(compiled)}

    system = DiffusionSystem.load(ctx.parent)
    unet: Any = system.unet
    spec = IoSpec.load(quantized / "io_spec.json")
    emulated = EmulatedUNet(compiled.wrapper, spec, config.soc_model, sessions(compiled.binary))
    simulated = simulated_unet(unet, quantized, target.arch)
    onnx = OnnxUNet(quantized / "model.onnx", spec)
    forms = {"float": float_unet(unet, spec), "aimet": simulated, "onnx": onnx, "htp": emulated}
    parity, curves = parity_on_trajectories(forms, quantized)
    metrics |= parity
    ctx.progress.message(f"emulator agrees with the simulation to {metrics['htp_vs_aimet_sqnr_db']:.1f} dB")
    layers = Layers(simulated, quantized, target, ctx.work)
    check_parity(config, metrics, layers.where_they_part)
    rows = [asdict(row) for row in layers.table(config.layers, ctx.progress, sessions(compiled.binary))]
    if has_halves(ctx.out):
        ctx.progress.message("compiling the autoencoder")
        halves = deploy_halves(system, held_out_pictures(config), ctx.out, target)
        metrics |= {name: metrics.get(name, 0) + value for name, value in halves.items()}
    metrics |= write_bundle(ctx.out, system, target, ctx.out / BUNDLE)
    if config.eval_images:
        emulated.runner.kept = Kept(ctx.work / "emulated")  # an hour's work: what a killed attempt did is found again
        wholes = {
            "htp": (with_runtime(system, ctx.out, "htp"), emulated),
            "aimet": (with_runtime(system, ctx.out, "simulation", target.arch), simulated),
            "float": (system, forms["float"]),
        }
        metrics |= picture_parity(wholes, config.eval_images, ctx.progress, ctx.out)
    metrics |= deployed_scores(ctx.parent, metrics)
    copy_verdicts(ctx.parent, ctx.out)
    save_sample_pictures(ctx.out, with_runtime(system, ctx.out, "onnx"), onnx)
    return StageResult(metrics, curves, {"layers": rows} if rows else {}, spec=dict(unet.config))


def quantized_folder(parent: Path) -> Path:
    """The parent's quantized/; UserError where it has none."""
    folder = parent / QUANTIZED
    if not (folder / "model.onnx").is_file():
        raise UserError.of(
            f"there is no {QUANTIZED}/model.onnx", str(parent), "Stage deploy follows stage quantize; put it before."
        )
    return folder


def sessions(binary: Path) -> int:
    """How many emulators run side by side: as many as torch has threads, but one where the network is large."""
    return torch.get_num_threads() if binary.stat().st_size < SEVERAL_BELOW_MB * 1e6 else 1


def residency_metrics(compiled: Compiled) -> dict[str, float]:
    """Sizes, cost of compiling, and what the compiled graph computes in."""
    residency = read_residency(compiled.graph_json)
    return {
        "binary_mb": compiled.binary.stat().st_size / 1e6,
        "compile_s": compiled.compile_s,
        "compile_peak_rss_gb": compiled.peak_rss_gb,
        "nodes_on_htp_percent": nodes_on_htp_percent(compiled.wrapper, residency),
        **residency.metrics(),
    }


def parity_on_trajectories(
    forms: Mapping[str, HostDenoiser], quantized: Path
) -> tuple[dict[str, float], dict[str, list[tuple[float, float]]]]:
    """SQNR of the emulator and of ONNX along the trajectories held out from calibration, in all and by step."""
    recorded, held_out = CalibrationSet.load(quantized / "calibration.safetensors")
    measured = recorded.trajectories(held_out)
    start = time.perf_counter()
    found = answers({"htp": forms["htp"]}, measured.inputs)
    forward_s = (time.perf_counter() - start) / len(measured)
    found |= answers({name: form for name, form in forms.items() if name != "htp"}, measured.inputs)
    metrics, curves = {"emulator_forward_s": forward_s}, {}
    for other, reference in (("htp", "aimet"), ("htp", "float"), ("onnx", "aimet"), ("aimet", "float")):
        name = f"{other}_vs_{reference}_sqnr_db"
        parity = trajectory_parity(found[reference], found[other], measured.step_n)
        metrics[name] = parity.overall_db
        curves[f"{name}_by_step"] = [(float(step), value) for step, value in enumerate(parity.by_step_db)]
    return metrics, curves


def check_parity(config: DeployConfig, metrics: Mapping[str, float], where_they_part: Callable[[float], str]) -> None:
    """Refuses a binary that computes something else than was simulated, and says where that begins."""
    found = metrics["htp_vs_aimet_sqnr_db"]
    if math.isnan(found) or found < config.least_sqnr_db:
        raise UserError.of(
            f"the compiled network agrees with its simulation to {found:.1f} dB only, "
            f"{where_they_part(config.least_sqnr_db)}",
            f"stage {config.name!r}",
            f"Widths or a map size that the HTP compiler gets wrong are the likely cause: use multiples of 64. "
            f"To keep the binary all the same, set least_sqnr_db below {config.least_sqnr_db:g}.",
        )


def held_out_pictures(config: DeployConfig) -> Tensor:
    """Pictures in [-1, 1] that calibration has not seen, to compare the autoencoder's forms on."""
    samples = edit_samples(PARITY_PICTURES, PARITY_SEED + config.seed)
    return to_tensor(render([sample.source for sample in samples]))


def picture_parity(
    wholes: Mapping[str, tuple[DiffusionSystem, HostDenoiser]], pictures: int, progress: Progress, out: Path
) -> dict[str, float]:
    """Scores of the same pictures, half of them edits, by the system's form on the emulator ("htp") and the others; the
    verdicts one by one go into `out`."""
    half = max(1, pictures // 2)
    system, emulated = wholes["htp"]
    assert isinstance(emulated, EmulatedUNet)
    steps = len(system.sampling.rungs) if system.sampling.rungs else system.sampling.steps
    progress.start(2 * half * steps, "forwards", "HTP emulator")
    emulated.runner.after_row = progress.advance
    found: dict[str, float] = {"emulated_pictures_count": 2 * half}
    for form, (whole, denoiser) in wholes.items():
        values = scores(whole, denoiser, half, held_out=False, folder=out, form=form)
        found |= {f"{form}_{name}": values[name] for name in SCORES}
    emulated.runner.after_row = None
    return found


def deployed_scores(parent: Path, metrics: Mapping[str, float]) -> dict[str, float]:
    """The deployed network's t2i, edit and overall, by the difference estimator.

    The parent's score rests on many pictures from ONNX, which computes the same integers; the emulator made few or
    none of them. What it adds is the paired difference to the simulation on those few: deployed = parent + (emulator -
    simulation). Without a score of the parent it is the emulator's own; with neither there is none.
    """
    card = load_card(parent).metrics if (parent / CARD).exists() else {}
    found: dict[str, float] = {}
    for name in SCORES:
        emulated, base = metrics.get(f"htp_{name}"), card.get(name)
        if base is None:
            if emulated is not None:
                found[name] = emulated
            continue
        shift = 0.0 if emulated is None else emulated - metrics[f"aimet_{name}"]
        for key in (name, f"{name}_low", f"{name}_high"):
            if (value := card.get(key)) is not None:
                found[key] = min(1.0, max(0.0, value + shift))
    return found
