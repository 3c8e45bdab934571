"""The streamed path: equal to the operators in memory, and refuses what is not whole before it writes anything."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DreamLiteUNetModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from compress import cli
from compress.config.stream import CALIBRATED_CRITERIA, CALIBRATED_LAYER_RULES, CRITERIA, DTYPES, StreamConfig
from compress.errors import UserError
from compress.pruning.evolution import rehouse
from compress.pruning.stream import saliency, writer
from compress.pruning.stream.evolve import stream, teacher_spec
from compress.pruning.stream.files import open_checkpoint
from compress.pruning.stream.noise import write_teacher
from compress.pruning.stream.stage import run
from compress.pruning.stream.teacher import open_teacher
from compress.pruning.surgery import OPERATORS, Bench
from compress.stages.prune import TABLE
from students.init import Ledger
from students.lazy import LazyState
from students.presets import dreamlite_full, sdxl_full
from students.spec import NONE, SELF_CROSS, StudentSpec
from tests.tiny import context

# SDXL's topology with two stages: a step takes a tenth of a second
TEACHER = replace(
    sdxl_full(),
    widths=(64, 192),
    layers_per_block=(1, 1),
    transformer_layers=(1, 2),
    heads=(1, 3),
    down_attention=(NONE, SELF_CROSS),
    up_attention=(NONE, SELF_CROSS),
    cross_dim=96,
    pooled_dim=40,
    size_dim=32,
    sample_size=8,
)
SMALL = StreamConfig(widths=(64, 128), layers_per_block=1, transformer_layers=(1, 1), cross_dim=128)
STEM = "diffusion_pytorch_model"
# dtype and shards of the teacher, and how its heads are merged
CASES = [
    pytest.param("bf16", 3, "mean", marks=pytest.mark.slow),
    pytest.param("fp16", 1, "svd", marks=pytest.mark.slow),
    pytest.param("fp32", 2, "mean", marks=pytest.mark.slow),
]


def workbench(criterion="magnitude", kv_merge="mean"):
    return Bench([], criterion, torch.Generator().manual_seed(0), kv_merge)


def in_memory(folder, goal, steps, bench):
    """The same chain of operators on whole networks."""
    teacher = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32)
    draft = rehouse(teacher, TEACHER.pooled_dim)
    ledger = Ledger(draft.unet.state_dict())
    for name in steps:
        draft, transplant = OPERATORS[name].apply(draft, goal, bench)
        ledger.record(transplant)
    return draft, ledger


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    write_teacher(folder, TEACHER, "bf16", shards=3)
    return folder


def copied(teacher, folder):
    """A copy of the teacher that a test may damage."""
    (folder / "unet").mkdir(parents=True)
    for path in (teacher / "unet").iterdir():
        (folder / "unet" / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize(("dtype", "shards", "kv_merge"), CASES)
def test_the_streamed_student_is_the_one_made_in_memory(tmp_path, dtype, shards, kv_merge):
    write_teacher(tmp_path, TEACHER, dtype, shards)
    checkpoint = open_checkpoint(tmp_path / "unet")
    goal = SMALL.goal(teacher_spec(checkpoint))
    made = stream(checkpoint, goal, SMALL.steps, workbench(kv_merge=kv_merge), tmp_path / "out", "fp32")
    draft, ledger = in_memory(tmp_path, goal, SMALL.steps, workbench(kv_merge=kv_merge))
    wanted, found = draft.unet.state_dict(), load_file(tmp_path / f"out/unet/{STEM}.safetensors")
    assert set(found) == set(wanted)
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []
    assert made.ledger.table() == ledger.table()


def test_the_stage_writes_what_stock_diffusers_loads(teacher, tmp_path):
    ctx = context(tmp_path, teacher=teacher)
    result = run(SMALL, ctx)
    unet, info = DreamLiteUNetModel.from_pretrained(ctx.out, subfolder="unet", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert StudentSpec.from_config(unet.config).widths == SMALL.widths
    assert result.metrics["parameters_m"] == sum(p.numel() for p in unet.parameters()) / 1e6
    assert [row["step"] for row in result.extra["evolution"]] == ["teacher", *SMALL.steps, "pair"]
    table = json.loads((ctx.out / TABLE).read_text())
    assert set(table) == set(unet.state_dict())
    sliced = table["up_blocks.0.resnets.0.conv2.pointwise.weight"]
    assert sliced["tensors"] == ["up_blocks.0.resnets.0.conv2.weight"]
    assert [step["operator"] for step in sliced["steps"]] == ["width", "separable"]
    assert all(0 < step["relative_error"] < 1 for step in sliced["steps"])
    assert sorted(path.name for path in ctx.out.iterdir()) == [TABLE, "unet"]


def truncate(unet: Path) -> None:
    shard = sorted(unet.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])


def remove_shard(unet: Path) -> None:
    sorted(unet.glob("*.safetensors"))[2].unlink()


def cut_header(unet: Path) -> None:
    shard = sorted(unet.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:50])


def garble(unet: Path) -> None:
    sorted(unet.glob("*.safetensors"))[0].write_bytes(b"<html>404: there is nothing here, least of all weights</html>")


def store_as_integers(unet: Path) -> None:
    shard = sorted(unet.glob("*.safetensors"))[0]
    save_file({name: tensor.to(torch.int8) for name, tensor in load_file(shard).items()}, shard)


def drop_a_tensor(unet: Path) -> None:
    shard = sorted(unet.glob("*.safetensors"))[0]
    tensors = load_file(shard)
    del tensors["conv_in.weight"]
    save_file(tensors, shard)


def change_config(**changes):
    def change(unet: Path) -> None:
        config = json.loads((unet / "config.json").read_text())
        (unet / "config.json").write_text(json.dumps(config | changes))

    return change


DAMAGE = [
    (truncate, "the file is truncated"),
    (remove_shard, "names this shard, and it is missing"),
    (cut_header, "do not hold its header"),
    (garble, "do not hold its header"),
    (store_as_integers, "weights are stored as I8"),
    (drop_a_tensor, "1 tensors that no shard has, first conv_in.weight"),
    (change_config(_class_name="SD3Transformer2DModel"), "not a U-Net of this family: class 'SD3Transformer2DModel'"),
    (change_config(cross_attention_dim=64), "have another shape than config.json says"),
    (change_config(layers_per_block=2), "are missing, first"),
    (lambda unet: (unet / "config.json").unlink(), "config.json: the file is missing"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_what_is_not_whole_is_refused_before_anything_is_written(teacher, tmp_path, damage, message):
    folder = copied(teacher, tmp_path / "teacher")
    damage(folder / "unet")
    ctx = context(tmp_path, teacher=folder)
    with pytest.raises(UserError, match=message) as caught:
        run(SMALL, ctx)
    assert all(problem.remedy for problem in caught.value.problems)
    assert list(ctx.out.iterdir()) == []


def test_everything_that_is_wrong_with_the_files_is_told_at_once(teacher, tmp_path):
    folder = copied(teacher, tmp_path)
    truncate(folder / "unet")
    remove_shard(folder / "unet")
    with pytest.raises(UserError) as caught:
        open_teacher(str(folder))
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(("path", "message"), [("", "there is no unet/"), ("nowhere/at/all", "there is no folder")])
def test_a_folder_without_a_network_is_refused(tmp_path, path, message):
    with pytest.raises(UserError, match=message):
        open_teacher(path or str(tmp_path))


def test_a_teacher_is_known_by_its_bytes(teacher, tmp_path):
    folder, card = open_teacher(str(teacher))
    assert folder == teacher
    other = copied(teacher, tmp_path)
    assert open_teacher(str(other))[1].content_hash == card.content_hash
    shard = sorted((other / "unet").glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    assert open_teacher(str(other))[1].content_hash != card.content_hash


def test_a_failure_leaves_no_half_written_network(tmp_path):
    def fail(name):
        raise OSError("the disk is full")

    wanted = {"a": torch.Size([2])}
    with pytest.raises(OSError):
        writer.write_safetensors(tmp_path / "x.safetensors", wanted, {"a": torch.ones(2)}, torch.float32, fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", writer.DTYPES)
def test_what_is_written_is_read_back(tmp_path, dtype):
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([0.5]), "c": torch.zeros(0)}
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    writer.write_safetensors(tmp_path / f"{STEM}.safetensors", shapes, tensors, writer.DTYPES[dtype])
    (tmp_path / "config.json").write_text("{}")
    ours, theirs = open_checkpoint(tmp_path).tensors(), load_file(tmp_path / f"{STEM}.safetensors")
    assert all(torch.equal(ours[name], tensor) for name, tensor in tensors.items())
    assert all(theirs[name].dtype == writer.DTYPES[dtype] for name in tensors)


def test_the_goal_at_full_size_is_the_published_student():
    assert StreamConfig().problems() == []
    assert StreamConfig().goal(sdxl_full()) == dreamlite_full()
    assert CRITERIA == saliency.CRITERIA and tuple(writer.DTYPES) == DTYPES
    assert cli._STREAMED == CALIBRATED_CRITERIA
    assert cli._STREAMED_RULES == CALIBRATED_LAYER_RULES


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"criterion": "taylor"}, "criterion is 'taylor'"),
        ({"compensated": ("pair",)}, "compensated is ('pair',)"),
        ({"layer_rule": "laptop"}, "layer_rule is 'laptop'"),
        ({"layer_rule": "tiny_fusion"}, "layer_rule is 'tiny_fusion'"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
    ],
)
def test_what_would_take_samples_is_refused(change, what):
    assert any(what in problem.what for problem in replace(SMALL, **change).problems())


def test_squares_are_summed_along_both_axes():
    weight = torch.randn(30, 20, 3, 3)
    rows, columns = saliency.squared_sums(weight)
    square = weight.double().square()
    assert torch.allclose(rows, square.sum((1, 2, 3)), rtol=1e-6)
    assert torch.allclose(columns, square.sum((0, 2, 3)), rtol=1e-6)


def test_chance_depends_on_the_name_and_not_on_the_order():
    shapes = {name: torch.Size([4, 5]) for name in "ab"}

    def scores(seed, names):
        found = saliency.score_streamed("random", {}, shapes, torch.Generator().manual_seed(seed))
        return {name: found.along[name, 0] for name in names}

    one, two, other = scores(1, "ab"), scores(1, "ba"), scores(2, "ab")
    assert all(torch.equal(one[name], two[name]) for name in "ab")
    assert not torch.equal(one["a"], one["b"]) and not torch.equal(one["a"], other["a"])
    with pytest.raises(ValueError, match="taylor looks at data"):
        saliency.score_streamed("taylor", {}, shapes, torch.Generator())


def test_promised_tensors_are_made_together_and_let_go():
    state, calls = LazyState(), []

    def fill():
        calls.append(1)
        state["a"], state["b"] = torch.ones(1), torch.ones(2)

    state.defer(["a", "b"], fill)
    state["c"] = torch.ones(3)
    assert list(state) == ["a", "b", "c"] and "a" in state and calls == []
    assert len(state["a"]) == 1 and len(state["a"]) == 1 and len(state["b"]) == 2 and calls == [1]
    assert len(state["b"]) == 2 and calls == [1, 1]  # all were handed out, so it was computed anew
