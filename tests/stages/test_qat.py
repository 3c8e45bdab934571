"""Quantization-aware distillation on the smallest real system: it comes nearer to float, on the same grids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from compress.config.qat import QatConfig
from compress.config.quantize import QuantizeConfig
from compress.errors import UserError
from compress.quantization.runtime import ROUNDED
from compress.stages import qat, quantize
from students.system import SamplingDefaults
from tests.tiny import context, tiny_system

FEW_STEPS = SamplingDefaults(
    steps=2, guidance_text=1.0, guidance_edit_text=1.0, guidance_image=1.0, rungs=(1.0, 0.5), stochastic=True
)
CONFIG = QatConfig(steps=16, batch_size=8, learning_rate=3e-6, warmup_steps=2, trajectories=6, log_every=1)


def test_it_refuses_what_is_not_quantized_and_less_than_full_precision(tmp_path: Path):
    (problem,) = QatConfig(precision="bf16").problems()
    assert "Use fp32" in problem.remedy and QatConfig().problems() == []
    with pytest.raises(UserError, match=r"no quantized/model\.onnx"):
        qat.run(CONFIG, context(tmp_path, parent=Path("teachers/weights/scenes").resolve()))


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Path:
    """A tiny system quantized by AIMET's default: nothing has made up for rounding yet."""
    folder = tmp_path_factory.mktemp("qat")
    tiny_system(sampling=FEW_STEPS).save(folder / "float")
    made = context(folder / "quantize", parent=folder / "float")
    config = QuantizeConfig(generations=4, edits=4, rounding="nearest", autoencoder=False, qairt=True)
    quantize.run(config, made)
    return made.out


@pytest.fixture(scope="module")
def whole(parent: Path, tmp_path_factory):
    """One unbroken run: what it returned, and its artefact."""
    ctx = context(tmp_path_factory.mktemp("whole"), parent=parent)
    return qat.run(CONFIG, ctx), ctx.out


@pytest.mark.slow
def test_it_comes_nearer_to_float_on_the_same_grids(parent: Path, whole):
    found, out = whole
    assert found.metrics["aimet_vs_float_sqnr_db"] > found.metrics["aimet_vs_float_sqnr_db_before"] + 0.2
    assert found.metrics["onnx_vs_aimet_sqnr_db"] > 55
    assert len(found.curves["loss"]) == CONFIG.steps
    chosen = load_file(out / "quantized" / ROUNDED)
    assert {value.dtype for value in chosen.values()} == {torch.int8, torch.float32}
    for file in ("quantized/encodings.json", "unet/diffusion_pytorch_model.safetensors"):
        assert (out / file).read_bytes() == (parent / file).read_bytes()
    for file in ("quantized/model.onnx", "quantized/qairt/unet.onnx"):
        assert (out / file).read_bytes() != (parent / file).read_bytes()


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(parent: Path, whole, tmp_path: Path, monkeypatch):
    killed = context(tmp_path / "killed", parent=parent)
    with monkeypatch.context() as patch:
        step = qat.QatStage.step

        def dies(self, update, generator):
            if update == 5:
                raise KeyboardInterrupt
            return step(self, update, generator)

        patch.setattr(qat.QatStage, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            qat.run(replace(CONFIG, checkpoint_every_s=0), killed)
    qat.run(CONFIG, killed)
    ours, theirs = (load_file(out / "quantized" / ROUNDED) for out in (whole[1], killed.out))
    assert ours.keys() == theirs.keys() and all(torch.equal(theirs[name], value) for name, value in ours.items())
