"""Families other than SDXL by the streamed path: the same student as in memory, and refusals that write nothing."""

import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from compress.config.stream import StreamConfig
from compress.errors import UserError
from compress.pruning.evolution import rehouse
from compress.pruning.stream.evolve import teacher_spec
from compress.pruning.stream.files import STEM, open_checkpoint
from compress.pruning.stream.noise import write_teacher
from compress.pruning.stream.stage import run
from compress.pruning.surgery import OPERATORS, Bench
from students.spec import StudentSpec
from tests.pruning.families import NARROW, some_slow
from tests.tiny import context

PLAIN = {"student_class": "UNet2DConditionModel", "steps": ("depth", "width"), "dtype": "fp32"}
STAY = {
    "SD 1.5": StreamConfig(widths=(64, 64, 128, 128), layers_per_block=1, transformer_layers=(1, 1, 1, 1), **PLAIN),
    "SSD-1B": StreamConfig(widths=(64, 128, 128), layers_per_block=2, transformer_layers=(0, 2, 3), **PLAIN),
    "KOALA": StreamConfig(widths=(64, 64, 128), layers_per_block=1, transformer_layers=(0, 1, 1), **PLAIN),
}
SMALLER = {"widths": (64, 64, 128), "layers_per_block": 1, "transformer_layers": (1, 1, 1), "cross_dim": 32}


@pytest.mark.parametrize("name", some_slow(STAY, fast=()))
def test_a_student_in_its_teachers_class_is_the_one_made_in_memory(name, tmp_path):
    config, spec = STAY[name], NARROW[name]
    write_teacher(tmp_path, spec, "fp32", shards=2)
    assert teacher_spec(open_checkpoint(tmp_path / "unet")) == spec
    ctx = context(tmp_path, teacher=tmp_path)
    result = run(config, ctx)
    unet, info = UNet2DConditionModel.from_pretrained(ctx.out, subfolder="unet", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert json.loads((ctx.out / "unet" / "config.json").read_text())["_class_name"] == "UNet2DConditionModel"
    assert unet.config.block_out_channels == list(config.widths)
    draft = rehouse(UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet"), spec.pooled_dim)
    bench = Bench([], config.criterion, torch.Generator().manual_seed(config.seed))
    for step in config.steps:
        draft, _ = OPERATORS[step].apply(draft, config.goal(spec), bench)
    wanted, found = draft.as_plain().unet.state_dict(), unet.state_dict()
    assert [key for key in wanted if not torch.equal(found[key], wanted[key])] == []
    assert [row["step"] for row in result.extra["evolution"]] == ["teacher", "depth", "width", "plain"]
    assert StudentSpec.from_config(unet.config).widths == config.widths


def change_class(unet, name):
    config = json.loads((unet / "config.json").read_text())
    (unet / "config.json").write_text(json.dumps(config | {"_class_name": name}))


def rename_a_layer(unet):
    file = unet / f"{STEM}.safetensors"
    tensors = load_file(file)
    tensors["down_blocks.0.motion_modules.0.weight"] = tensors.pop("conv_in.weight")
    save_file(tensors, file)


def truncate(unet):
    file = unet / f"{STEM}.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


REFUSED = [
    ("SD 1.5", STAY["SD 1.5"], lambda unet: change_class(unet, "UNet3DConditionModel"), "class 'UNet3DConditionModel'"),
    ("SD 1.5", STAY["SD 1.5"], lambda unet: change_class(unet, "UNetMotionModel"), "class 'UNetMotionModel'"),
    (
        "SD 1.5",
        STAY["SD 1.5"],
        lambda unet: change_class(unet, "DiTTransformer2DModel"),
        "class 'DiTTransformer2DModel'",
    ),
    ("SD 1.5", STAY["SD 1.5"], rename_a_layer, "not of this network, first down_blocks.0.motion_modules.0.weight"),
    ("SD 1.5", STAY["SD 1.5"], truncate, "the file is truncated"),
    (
        "SD 1.5",
        StreamConfig(**SMALLER | {"widths": (64, 64, 128, 128), "transformer_layers": (1, 1, 1, 1)}),
        None,
        "heads of stage 0 are 64 wide, the teacher's 32",
    ),
    (
        "SSD-1B",
        StreamConfig(**SMALLER, steps=("width", "separable")),
        None,
        "cannot say separable convolutions.*drop the middle",
    ),
    ("DreamLite", StreamConfig(**SMALLER | {"cross_dim": 64}), None, "the teacher's own projection writes 32"),
    ("DreamLite", StreamConfig(**SMALLER, **PLAIN), None, "config.json cannot say separable convolutions"),
]


@pytest.mark.parametrize(("name", "config", "damage", "message"), REFUSED)
def test_what_cannot_be_made_is_refused_before_anything_is_written(name, config, damage, message, tmp_path):
    write_teacher(tmp_path, NARROW[name], "bf16")
    if damage is not None:
        damage(tmp_path / "unet")
    ctx = context(tmp_path, teacher=tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        run(config, ctx)
    assert all(problem.remedy for problem in caught.value.problems)
    assert list(ctx.out.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"student_class": "DiTTransformer2DModel"}, "student_class is 'DiTTransformer2DModel'"),
        ({"student_class": "UNet2DConditionModel"}, "steps is"),
    ],
)
def test_a_class_that_cannot_hold_the_student_is_told_without_the_teacher(change, what):
    (problem, *_) = StreamConfig(**SMALLER | change).problems()
    assert what in problem.what and problem.remedy
    assert STAY["SSD-1B"].problems() == [] == STAY["KOALA"].problems()
