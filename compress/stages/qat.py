"""Stage `qat`: quantization-aware distillation of the W8A16 student (arXiv 2103.13630, section III; float as teacher).

The artefact is its parent's, which stage quantize made, with other weights on the same grids: quantized/model.onnx and
rounded.safetensors are new, encodings and calibration are not.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from compress.artifact import CARD
from compress.config.qat import QatConfig
from compress.data.calibration import CalibrationSet
from compress.judge import cost_of
from compress.quantization.aimet import Simulation, safe_scale
from compress.quantization.grids import Encodings
from compress.quantization.halves import with_runtime
from compress.quantization.host import HostDenoiser, IoSpec, NetworkInputs
from compress.quantization.onnx_writer import write_onnx
from compress.quantization.parity import TrajectoryParity, answers, sqnr_db, trajectory_parity
from compress.quantization.qairt import FOLDER as QAIRT
from compress.quantization.qairt import write_qairt
from compress.quantization.ranges import layers
from compress.quantization.rounding import nearest, put
from compress.quantization.runtime import ROUNDED, OnnxUNet, float_unet, simulated_unet
from compress.quantization.scoring import save_sample_pictures, scores
from compress.stages.base import StepResult, TrainingStage, fit
from compress.stages.context import Progress, StageContext, StageResult
from compress.stages.deploy import quantized_folder
from compress.stages.quantize import record, scored_images
from students.system import DiffusionSystem

TRAINING_SEED = 61_173  # of the trajectories; no other stage draws from it


class QatStage(TrainingStage):
    """Minimises the squared distance between the simulation's answer and the float student's on recorded calls."""

    def __init__(
        self, config: QatConfig, progress: Progress, simulation: Simulation, unet: Any, calls: NetworkInputs
    ) -> None:
        super().__init__(config, progress)
        self.trained = simulation.graph_module
        for _, module in layers(simulation):
            for name in ("weight", "bias"):
                if (value := getattr(module, name)) is not None:  # a copy: the float graph has the same tensor
                    setattr(module, name, nn.Parameter(value.detach().clone()))
        self.start_averaging()
        self.calls = calls
        self._teacher = self.guest(unet)

    def step(self, update: int, generator: torch.Generator) -> StepResult:
        rows_b = torch.randint(len(self.calls), (self.config.batch_size,), generator=generator)
        given = [tensor.to(self.device) for tensor in self.calls[rows_b].tensors()]
        with torch.no_grad():
            wanted_bchw = _answer(self._teacher()(*given))
        found_bchw = _answer(self.trained(*given).as_subclass(Tensor))
        error = (found_bchw - wanted_bchw).square().mean() / wanted_bchw.square().mean()
        return StepResult(error, {"sqnr_db": -10 * error.detach().log10()})


def _answer(pair_bchw: Tensor) -> Tensor:
    """The half of a velocity pair that is used: the target's."""
    return pair_bchw[..., : pair_bchw.shape[3] // 2]


def run(config: QatConfig, ctx: StageContext) -> StageResult:
    """Trains on the CPU or a GPU; measures as stage quantize does, before and after."""
    assert ctx.parent is not None
    from compress.quantization.graph import behind_sinusoids

    folder = quantized_folder(ctx.parent)
    system = DiffusionSystem.load(ctx.parent)
    spec = IoSpec.load(folder / "io_spec.json")
    simulated = simulated_unet(system.unet, folder, config.htp_arch)
    simulation: Any = simulated.forward
    recorded, held_out = CalibrationSet.load(folder / "calibration.safetensors")
    measured = recorded.trajectories(held_out)
    before = parity(system, spec, simulated, measured).overall_db
    ctx.progress.message(f"recording {config.trajectories} generations and as many edits, every step")
    calls, _ = record(system, spec, config.trajectories, config.trajectories, 0, TRAINING_SEED + config.seed)
    stage = QatStage(config, ctx.progress, simulation, behind_sinusoids(system.unet), calls.inputs)
    fit(stage, ctx, config.name)
    stage.to("cpu")
    chosen = learned(simulation)
    put(simulation, chosen)
    shutil.copytree(ctx.parent, ctx.out, dirs_exist_ok=True, ignore=lambda _, names: {CARD, "samples"} & set(names))
    after = write(ctx.out, simulation, chosen)
    found = parity(system, spec, simulated, measured)
    onnx = OnnxUNet(after / "model.onnx", spec)
    metrics = {
        **cost_of(ctx.out),
        "aimet_vs_float_sqnr_db_before": before,
        "aimet_vs_float_sqnr_db": found.overall_db,
        "onnx_vs_aimet_sqnr_db": sqnr_db(simulated.forward(measured.inputs), onnx.forward(measured.inputs)),
        "size_mb": (after / "model.onnx").stat().st_size / 1e6,
    }
    whole = with_runtime(system, ctx.out, "onnx")
    images = scored_images(ctx.parent) if config.score_images is None else config.score_images
    if images:
        metrics |= scores(whole, onnx, images, ctx.progress, folder=ctx.out)
    save_sample_pictures(ctx.out, whole, onnx)
    curves = stage.curves | {"aimet_vs_float_sqnr_db_by_step": [(float(i), v) for i, v in enumerate(found.by_step_db)]}
    unet: Any = system.unet
    return StageResult(metrics, curves, spec=dict(unet.config))


def parity(
    system: DiffusionSystem, spec: IoSpec, simulated: HostDenoiser, measured: CalibrationSet
) -> TrajectoryParity:
    """How near the simulation is to float on the trajectories that calibration held out, in all and by step."""
    found = answers({"float": float_unet(system.unet, spec), "aimet": simulated}, measured.inputs)
    return trajectory_parity(found["float"], found["aimet"], measured.step_n)


def learned(simulation: Simulation) -> dict[str, Tensor]:
    """The integers and biases that training ended with. A bias that the HTP's accumulator could not hold is refused:
    its layer keeps the float network's."""
    chosen = {}
    for node, module in layers(simulation):
        module.requires_grad_(False)
        chosen[f"{node.name}.weight"] = nearest(module)
        if module.bias is not None:
            (source,) = node.all_input_nodes
            scale = module.param_quantizers["weight"].get_encodings().scale
            fits = torch.equal(safe_scale(module, simulation.grids[source.name], simulation.grids[node.name]), scale)
            exact: Any = simulation.float_graph.get_submodule(str(node.target))
            chosen[f"{node.name}.bias"] = (module.bias if fits else exact.bias).detach().float().clone()
    return chosen


def write(out: Path, simulation: Simulation, chosen: dict[str, Tensor]) -> Path:
    """The learned weights in the artefact's quantized/, which is returned."""
    folder = quantized_folder(out)
    save_file(chosen, folder / ROUNDED)
    encodings = Encodings.load(folder / "encodings.json")
    write_onnx(simulation.float_graph, encodings, folder / "model.onnx")
    if (folder / QAIRT).is_dir():
        write_qairt(simulation.float_graph, encodings, folder / QAIRT, "unet")
    return folder
