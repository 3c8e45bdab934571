"""Quantization-aware distillation: it comes nearer to float, on the same grids, and resumes exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from compress.config.qat import QatConfig
from compress.config.quantize import QuantizeConfig
from compress.errors import UserError
from compress.quantization.parity import sqnr_db
from compress.quantization.rounding import put
from compress.quantization.runtime import ROUNDED
from compress.stages import qat, quantize
from compress.stages.base import fit
from students.system import SamplingDefaults
from tests.quantization.layers import calls, simulation
from tests.tiny import context, tiny_system

FEW_STEPS = SamplingDefaults(
    steps=2, guidance_text=1.0, guidance_edit_text=1.0, guidance_image=1.0, rungs=(1.0, 0.5), stochastic=True
)
CONFIG = QatConfig(steps=60, batch_size=8, learning_rate=3e-4, warmup_steps=2, log_every=1, checkpoint_every_s=0)


def test_it_refuses_what_is_not_quantized_and_less_than_full_precision(tmp_path: Path):
    (problem,) = QatConfig(precision="bf16").problems()
    assert "Use fp32" in problem.remedy and QatConfig().problems() == []
    with pytest.raises(UserError, match=r"no quantized/model\.onnx"):
        qat.run(CONFIG, context(tmp_path, parent=Path("teachers/weights/scenes").resolve()))


def trained(folder: Path, config: QatConfig = CONFIG):
    """Three layers with what was learned put in, and the integers and biases themselves."""
    made = simulation()
    ctx = context(folder)
    fit(qat.QatStage(config, ctx.progress, made, made.float_graph, calls(32, seed=1)), ctx, "qat")
    chosen = qat.learned(made)
    return made, chosen


@pytest.mark.slow
def test_it_comes_nearer_to_float_on_the_same_grids_and_leaves_the_float_network(tmp_path: Path):
    untrained, unseen = simulation(), calls(16, seed=2)
    float_graph, before = untrained.float_graph, sqnr_db(untrained.float_graph(*unseen.tensors()), untrained(unseen))
    made, chosen = trained(tmp_path)
    for name, weight in float_graph.state_dict().items():
        assert torch.equal(made.float_graph.state_dict()[name], weight)
    wanted = made.float_graph(*unseen.tensors())
    put(made, chosen)
    assert sqnr_db(wanted, made(unseen)) > before + 0.5
    grids, same = untrained.encodings(), made.encodings()
    assert all(abs(grid.scale - same.tensors[name].scale) < 1e-9 for name, grid in grids.tensors.items())
    assert all((grid.scale == same.parameters[name].scale).all() for name, grid in grids.parameters.items())


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = replace(CONFIG, steps=12)
    _, whole = trained(tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        step = qat.QatStage.step

        def dies(self, update, generator):
            if update == 5:
                raise KeyboardInterrupt
            return step(self, update, generator)

        patch.setattr(qat.QatStage, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "killed", config)
    _, resumed = trained(tmp_path / "killed", config)
    assert whole.keys() == resumed.keys() and all(torch.equal(resumed[name], value) for name, value in whole.items())


@pytest.mark.slow
def test_the_stage_leaves_its_parents_artefact_with_other_weights(tmp_path: Path):
    tiny_system(sampling=FEW_STEPS).save(tmp_path / "float")
    first = context(tmp_path / "quantize", parent=tmp_path / "float")
    settings = {"generations": 2, "edits": 2, "rounding": "nearest", "autoencoder": False, "qairt": True}
    quantize.run(QuantizeConfig(**settings, score_images=0), first)
    second = context(tmp_path / "qat", parent=first.out)
    config = replace(CONFIG, steps=3, learning_rate=3e-6, trajectories=2, score_images=0)
    found = qat.run(config, second)
    assert abs(found.metrics["aimet_vs_float_sqnr_db"] - found.metrics["aimet_vs_float_sqnr_db_before"]) < 3
    assert found.metrics["onnx_vs_aimet_sqnr_db"] > 55 and len(found.curves["loss"]) == config.steps
    chosen = load_file(second.out / "quantized" / ROUNDED)
    assert {value.dtype for value in chosen.values()} == {torch.int8, torch.float32}
    for file in ("quantized/encodings.json", "unet/diffusion_pytorch_model.safetensors"):
        assert (second.out / file).read_bytes() == (first.out / file).read_bytes()
    for file in ("quantized/model.onnx", "quantized/qairt/unet.onnx"):
        assert (second.out / file).read_bytes() != (first.out / file).read_bytes()
