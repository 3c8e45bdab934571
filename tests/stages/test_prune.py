"""The prune stage: a teacher's folder in, a student's folder out, that stock diffusers loads."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import DreamLiteUNetModel, UNet2DConditionModel
from safetensors.torch import load_file

from compress.config.budget import Budget
from compress.config.prune import CRITERIA, LAYER_RULES, STEPS, PruneConfig
from compress.cost import parameters
from compress.errors import UserError
from compress.judge import spec_of
from compress.pruning.budget.goal import largest_of
from compress.pruning.criteria import CRITERIA as SCORERS
from compress.pruning.criteria import LAYER_RULES as RULES
from compress.pruning.surgery import OPERATORS
from compress.stages.prune import TABLE, draw_samples, run, unreachable
from students.spec import StudentSpec, with_heads
from students.system import DiffusionSystem
from tests.tiny import SPEC as STUDENT
from tests.tiny import context, tiny_system

CONFIG = PruneConfig(
    widths=(64, 64),
    transformer_layers=(1, 1),
    calibration_samples=8,
    fitting_samples=16,
    held_out_samples=8,
    compensated=("pair",),
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1),
        attention_head_dim=(1, 2),
        use_linear_projection=True,
        cross_attention_dim=32,
        addition_embed_type="text_time",
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=32 + 2 * 32,
    )
    tiny_system().with_unet(unet).save(folder)
    return folder


@pytest.fixture(scope="module")
def pruned(teacher, tmp_path_factory):
    ctx = context(tmp_path_factory.mktemp("prune"), parent=teacher, teacher=teacher)
    return ctx.out, run(CONFIG, ctx)


@pytest.mark.slow
def test_stock_diffusers_loads_the_student_strictly(pruned):
    out, result = pruned
    unet, info = DreamLiteUNetModel.from_pretrained(out, subfolder="unet", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    spec = StudentSpec.from_config(unet.config)
    assert spec.problems() == [] and spec.widths == (64, 64) and spec.kv_heads == 1 and spec.separable
    assert result.metrics["parameters_m"] == sum(p.numel() for p in unet.parameters()) / 1e6
    assert 0 < result.metrics["ratio_parameters"] < 1 and result.metrics["velocity_mse"] > 0


@pytest.mark.slow
def test_the_student_is_a_whole_system_that_generates_and_edits(pruned):
    system = DiffusionSystem.load(pruned[0])
    assert system.edits
    condition = replace(system.encode_text(["[edit] remove the circle"]), source_bchw=torch.randn(1, 4, 8, 8))
    velocity = system.denoiser.velocity(torch.randn(1, 4, 8, 8), torch.tensor([0.5]), condition)
    assert velocity.shape == (1, 4, 8, 8) and velocity.isfinite().all()


@pytest.mark.slow
def test_the_card_tells_the_evolution_and_the_provenance(pruned):
    out, result = pruned
    rows = result.extra["evolution"]
    assert [row["step"] for row in rows] == ["teacher", *STEPS, "pair", "unstructured"]
    assert json.loads(json.dumps(result.extra))["kept"]["width"]
    table = json.loads((out / TABLE).read_text())
    assert set(table) == set(DreamLiteUNetModel.from_pretrained(out, subfolder="unet").state_dict())
    assert result.metrics["velocity_mse_unstructured"] == rows[-1]["velocity_mse"]


@pytest.mark.slow
def test_a_student_pruned_in_two_stages_is_measured_against_the_teacher(teacher, pruned, tmp_path):
    """Without steps the second stage changes nothing, so that it has to find the first one's error and size."""
    first = pruned[1].metrics
    config = replace(CONFIG, steps=(), compensated=(), criterion="magnitude", unstructured_baseline=False)
    assert config.problems() == []
    second = run(config, context(tmp_path, parent=pruned[0], teacher=teacher))
    assert second.metrics["velocity_mse"] == pytest.approx(first["velocity_mse"], rel=1e-4)
    assert second.metrics["ratio_parameters"] == first["ratio_parameters"] < 1
    assert second.extra["evolution"][0]["title"] == "the student so far"


@pytest.mark.slow
@pytest.mark.slow
def test_what_runs_of_one_process_have_in_common_is_held_and_changes_nothing(teacher, pruned, tmp_path, monkeypatch):
    place = shutil.copytree(teacher, tmp_path / "teacher")
    (place / "card.json").write_text("{}")
    monkeypatch.setattr("compress.stages.prune.load_card", lambda folder: SimpleNamespace(content_hash="same"))
    laid = []
    monkeypatch.setattr(
        "compress.stages.prune.draw_samples", lambda *given: laid.append(given[0]) or draw_samples(*given)
    )
    held = {}

    def made(name, config):
        ctx = replace(context(tmp_path / name, parent=place, teacher=place), held=held)
        return run(config, ctx), load_file(ctx.out / "unet" / "diffusion_pytorch_model.safetensors")

    first, again, other = made("a", CONFIG), made("b", CONFIG), made("c", replace(CONFIG, criterion="magnitude"))
    assert len(laid) == 1 and len(held) == 1
    alone = load_file(pruned[0] / "unet" / "diffusion_pytorch_model.safetensors")
    for result, weights in (first, again):
        assert result.metrics == pytest.approx(pruned[1].metrics, rel=1e-6)
        assert weights.keys() == alone.keys()
        assert all(torch.allclose(weights[name], alone[name], atol=1e-5) for name in alone)
    assert other[0].metrics["velocity_mse"] != first[0].metrics["velocity_mse"]
    made("d", replace(CONFIG, seed=1))
    assert len(laid) == 2 and len(held) == 1


def test_a_budget_chooses_the_widths(teacher, tmp_path):
    config = replace(CONFIG, budget_parameters_m=1.0, compensated=(), criterion="random", unstructured_baseline=False)
    with pytest.raises(UserError, match="no legal student meets parameters_m 1"):
        run(config, context(tmp_path, teacher, teacher))


@pytest.mark.slow
def test_a_budget_shared_out_by_scores_is_met_by_the_student_that_is_written(teacher, tmp_path):
    steps = ("depth", "width", "feed_forward")
    config = replace(CONFIG, steps=steps, compensated=(), criterion="magnitude", layer_rule="laptop")
    config = replace(config, unstructured_baseline=False)
    whole = largest_of(config, spec_of(teacher))
    limit = parameters(with_heads(replace(whole, widths=(64, 64), layers_per_block=(1, 2)))) / 1e6
    config = replace(config, budget=Budget(parameters_m=limit, allocation="isomorphic"))
    assert config.problems() == []
    ctx = context(tmp_path, teacher, teacher)
    found = run(config, ctx).metrics["parameters_m"]
    unet = DreamLiteUNetModel.from_pretrained(ctx.out, subfolder="unet")
    assert 0.99 * limit <= found <= limit and found == sum(p.numel() for p in unet.parameters()) / 1e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (64, 192)}, "widths of stage 1 is 192, the teacher has 128"),
        ({"widths": (64, 64, 64), "transformer_layers": (1, 1, 1)}, "the teacher has 2 stages, widths names 3"),
        ({"layers_per_block": 3}, "layers_per_block of stage 0 is 3"),
    ],
)
def test_a_student_that_the_teacher_cannot_become_is_refused_before_any_work(teacher, tmp_path, change, message):
    ctx = context(tmp_path, teacher, teacher)
    with pytest.raises(UserError, match=message):
        run(replace(CONFIG, **change), ctx)
    assert list(ctx.out.iterdir()) == []


def test_what_no_operator_can_make_is_told_stage_by_stage():
    teacher = replace(STUDENT, widths=(128, 128, 256), layers_per_block=(2, 1, 1))
    assert unreachable(teacher, teacher) == []
    (above,) = unreachable(replace(teacher, layers_per_block=(3, 1, 1)), teacher)
    assert above == ("layers_per_block of stage 0 is 3, the teacher has 2", "Use at most 2.")
    (parted,) = unreachable(replace(teacher, widths=(64, 128, 256)), teacher)
    assert "part stages 0 and 1" in parted[0]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"widths": (64, 96)}, "width 96 of stage 1"),
        ({"criterion": "love"}, "criterion is 'love'"),
        ({"kv_merge": "max"}, "kv_merge is 'max'"),
        ({"steps": ("width", "depth")}, "steps is"),
        ({"steps": ("width", "shrink")}, "steps is"),
        ({"compensated": ("width", "dinner")}, "compensated is"),
        ({"transformer_layers": (1,)}, "transformer_layers is (1,)"),
        ({"transformer_layers": (1, 0)}, "transformer_layers is (1, 0)"),
        ({"ridges": (0.0, 1.0)}, "ridges is (0.0, 1.0)"),
        ({"fitting_samples": 2}, "fitting_samples is 2"),
        ({"budget_macs_g": -1.0}, "budget_macs_g is -1.0"),
        ({"budget_macs_g": 1.0, "steps": ("depth",), "compensated": ()}, "budget_macs_g is 1.0"),
    ],
)
def test_every_mistake_in_the_configuration_is_found_without_the_teacher(change, what):
    problems = replace(CONFIG, **change).problems()
    assert any(what in problem.what for problem in problems), [str(problem) for problem in problems]


def test_the_names_in_the_configuration_are_those_of_the_code():
    assert CONFIG.problems() == [] == PruneConfig().problems()
    assert tuple(OPERATORS) == STEPS and tuple(SCORERS) == CRITERIA and tuple(RULES) == LAYER_RULES
