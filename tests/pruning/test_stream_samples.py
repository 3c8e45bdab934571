"""Calibration samples for a streamed teacher: what they must be, how they are noised, what criteria make of them."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from compress.errors import UserError
from compress.pruning.stream.evolve import stream, teacher_spec
from compress.pruning.stream.files import open_checkpoint
from compress.pruning.stream.noise import write_teacher
from compress.pruning.stream.samples import FILE, read_samples, write_random_samples
from compress.pruning.stream.stage import run
from compress.pruning.stream.teacher import open_teacher
from compress.pruning.surgery import Bench
from tests.pruning.test_stream import SMALL, STEM, TEACHER, copied, in_memory
from tests.tiny import context


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    write_teacher(folder, TEACHER)
    return folder


@pytest.mark.parametrize(
    ("criterion", "layer_rule"),
    [
        pytest.param("taylor", "laptop", marks=pytest.mark.slow),
        pytest.param("activation", "weights", marks=pytest.mark.slow),
        pytest.param("fisher", "laptop", marks=pytest.mark.slow),
        pytest.param("diff_pruning", "koala", marks=pytest.mark.slow),
    ],
)
def test_with_samples_it_is_the_one_made_in_memory_too(tmp_path, criterion, layer_rule):
    write_teacher(tmp_path, TEACHER, "fp32")
    write_random_samples(tmp_path, TEACHER, 3, 8, tokens=5)
    checkpoint = open_checkpoint(tmp_path / "unet")
    spec = teacher_spec(checkpoint)
    goal = SMALL.goal(spec)

    def bench():
        batches = read_samples(tmp_path, spec, False, 3, 0)
        return Bench(batches, criterion, torch.Generator().manual_seed(0), "svd", layer_rule)

    made = stream(checkpoint, goal, SMALL.steps, bench(), tmp_path / "out", "fp32")
    draft, _ = in_memory(tmp_path, goal, SMALL.steps, bench())
    wanted, found = draft.unet.state_dict(), load_file(tmp_path / f"out/unet/{STEM}.safetensors")
    assert max(float((found[name] - wanted[name]).abs().max()) for name in wanted) < 1e-4
    assert made.report["depth"] and set(found) == set(wanted)


@pytest.mark.slow
def test_a_calibrated_stage_runs_in_sixteen_bits(teacher, tmp_path):
    folder = copied(teacher, tmp_path / "teacher")
    write_random_samples(folder, TEACHER, 2, 8, tokens=5)
    config = replace(SMALL, criterion="taylor", calibrated=True)
    assert config.problems() == []
    ctx = context(tmp_path, teacher=folder)
    run(config, ctx)
    found = load_file(ctx.out / f"unet/{STEM}.safetensors")
    assert all(tensor.dtype == torch.bfloat16 and tensor.isfinite().all() for tensor in found.values())


def bad_samples(**changes):
    """Calibration samples of the teacher with some tensors replaced, or left out where None."""
    sound = {"latents": torch.zeros(2, 4, 8, 8), "tokens": torch.zeros(2, 5, 96), "pooled": torch.zeros(2, 40)}
    return {name: tensor for name, tensor in (sound | changes).items() if tensor is not None}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (None, "there are no calibration samples"),
        (bad_samples(pooled=None), r"it holds no pooled, of shape \(any, 40\)"),
        (bad_samples(tokens=torch.zeros(2, 5, 95)), r"\(2, 5, 95\), the network takes \(any, any, 96\)"),
        (bad_samples(tokens=torch.zeros(1, 5, 96)), r"tokens has shape \(1, 5, 96\)"),
        (bad_samples(latents=torch.zeros(2, 4, 8, 7)), "latents are 8 x 7, which 2 stages cannot halve"),
        (bad_samples(latents=torch.full((2, 4, 8, 8), torch.nan)), "entries that are not finite"),
    ],
)
def test_samples_that_do_not_fit_are_refused(teacher, tmp_path, tensors, message):
    folder = copied(teacher, tmp_path / "teacher")
    if tensors is not None:
        save_file(tensors, folder / FILE)
    ctx = context(tmp_path, teacher=folder)
    with pytest.raises(UserError, match=message):
        run(replace(SMALL, criterion="taylor", calibrated=True), ctx)
    assert list(ctx.out.iterdir()) == []


def test_samples_are_noised_as_the_scheduler_says(tmp_path):
    write_random_samples(tmp_path, TEACHER, 4, 8, tokens=5)
    x0 = load_file(tmp_path / FILE)["latents"]

    def read(scheduler):
        (tmp_path / "scheduler").mkdir(exist_ok=True)
        (tmp_path / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler))
        return read_samples(tmp_path, TEACHER, False, 4, 0)

    steps = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    kept = (1 - steps).cumprod(0)
    beta = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    for row, batch in enumerate(read(beta | {"prediction_type": "epsilon"})):
        share = kept[round(float(1000 * batch.sigma_b))].float()
        wanted = share.sqrt() * x0[row : row + 1] + (1 - share).sqrt() * batch.velocity_bchw
        assert torch.allclose(batch.x_bchw, wanted, atol=1e-4)
    for row, batch in enumerate(read({"_class_name": "FlowMatchEulerDiscreteScheduler"})):
        wanted = x0[row : row + 1] + batch.sigma_b * batch.velocity_bchw
        assert torch.allclose(batch.x_bchw, wanted, atol=1e-5)


def test_a_teacher_is_known_by_its_samples_too(teacher, tmp_path):
    folder = copied(teacher, tmp_path)
    before = open_teacher(str(folder))[1].content_hash
    write_random_samples(folder, TEACHER, 2, 8, tokens=5)
    assert open_teacher(str(folder))[1].content_hash != before
