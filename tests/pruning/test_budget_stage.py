"""A budget in a prune stage and on the command line; without one nothing changes, keys included."""

import json
from dataclasses import replace

import pytest

from compress import cli
from compress.config.budget import Budget
from compress.config.prune import STEPS, PruneConfig
from compress.config.stream import StreamConfig
from compress.errors import UserError
from compress.overrides import apply_overrides
from compress.pruning.budget import Forward, price
from compress.pruning.budget.goal import goal_within, largest_of
from compress.recipe import stage_key
from compress.stages.prune import reach
from recipes.scenes_full import recipe
from students.presets import sdxl_full
from students.spec import NONE, SELF_CROSS, StudentSpec, with_heads

TEACHER = with_heads(
    StudentSpec(
        widths=(64, 128, 256),
        layers_per_block=(1, 2, 2),
        transformer_layers=(1, 2, 4),
        heads=(1, 1, 1),
        down_attention=(NONE, SELF_CROSS, SELF_CROSS),
        up_attention=(NONE, SELF_CROSS, SELF_CROSS),
        cross_dim=64,
        size_dim=32,
        size_values=6,
        pooled_dim=64,
        sample_size=8,
    )
)
KEY = "9188268c42ac6eba66b8fab89c29f364cef011dcecea10af5241fae46ceefeaf"
HALF = PruneConfig(budget=Budget(parameters_m=5.0))


def test_a_stage_without_a_budget_keeps_the_key_it_had_before_there_were_budgets():
    """Computed at commit 07e0204; another key would lose every artefact of this stage and of those after it."""
    stage = recipe().stages[0]
    assert isinstance(stage, PruneConfig) and stage.budget is None
    assert stage_key(stage, ["teacher"]) == KEY
    assert stage_key(replace(stage, budget=Budget(parameters_m=5.0)), ["teacher"]) != KEY


def test_a_budget_can_be_given_on_the_command_line():
    changed = apply_overrides(recipe(), ["--prune.budget.parameters_m", "5", "--prune.budget.chip", "8elite"])
    assert changed.stages[0].budget == Budget(parameters_m=5.0, chip="8elite")


def test_the_stage_reaches_the_student_of_the_plan():
    found = goal_within(HALF, TEACHER, 8, 8, 20)
    assert reach(HALF, TEACHER, 8, 8, 20) == found.spec
    assert found.spec.problems() == [] and 4.95 <= found.price.parameters_m <= 5.0
    assert found.spec.separable and found.spec.kv_heads == 1 and found.spec.ff_mult <= 3


def test_a_streamed_teacher_is_planned_with_the_students_text_width():
    spec = reach(StreamConfig(budget=Budget(parameters_m=390.0)), sdxl_full(), 64, 64, 77)
    assert spec.problems() == [] and (spec.cross_dim, spec.text_dim) == (2304, 2048)
    assert 386.1 <= price(spec, Forward(64, 128, 77), "8gen3").parameters_m <= 390


def test_steps_that_are_left_out_leave_their_sizes_alone():
    steps = tuple(step for step in STEPS if step not in ("width", "feed_forward"))
    config = replace(HALF, steps=steps, compensated=())
    shallow = replace(largest_of(config, TEACHER), transformer_layers=(1, 1, 3))
    limit = price(shallow, Forward(8, 16, 20), "8gen3").parameters_m
    assert reach(replace(config, budget=Budget(parameters_m=limit)), TEACHER, 8, 8, 20) == shallow
    assert shallow.widths == TEACHER.widths and shallow.ff_mult == TEACHER.ff_mult and config.problems() == []


def test_without_steps_that_change_it_the_largest_student_is_the_teacher():
    assert largest_of(replace(HALF, steps=("depth", "width"), compensated=()), TEACHER) == TEACHER
    whole = replace(HALF, steps=("depth", "width"), compensated=(), budget=Budget(parameters_m=1e3))
    assert reach(whole, TEACHER, 8, 8, 20) == TEACHER


def test_a_budget_below_the_smallest_student_is_refused():
    with pytest.raises(UserError, match=r"no legal student meets parameters_m 0.5: the smallest \(widths 64/64/64"):
        reach(replace(HALF, budget=Budget(parameters_m=0.5)), TEACHER, 8, 8, 20)


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (replace(HALF, budget=Budget()), "the budget has no limit"),
        (replace(HALF, steps=("qk_norm",), compensated=()), "steps is"),
        (replace(HALF, budget_macs_g=1.0), "stands beside"),
        (replace(HALF, layer_rule="laptop", budget=Budget(macs_g=1.0, allocation="global")), "cannot compare"),
        (StreamConfig(budget=Budget(macs_g=1.0, allocation="global")), "budget is"),
    ],
)
def test_every_mistake_is_found_without_the_teacher(config, what):
    assert any(what in problem.what for problem in config.problems())


@pytest.fixture
def sdxl(tmp_path):
    """A folder that holds SDXL's config and nothing else."""
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps(sdxl_full().to_config()))
    return tmp_path


def test_the_command_plans_from_a_config_alone(sdxl, capsys):
    assert cli.main(["plan", str(sdxl), "--parameters-m", "390", "--latent", "64", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    spec = StudentSpec.from_config(found["spec"])
    assert spec.problems() == [] and found["binding"] == "parameters_m"
    assert 386.1 <= found["parameters_m"] <= 390 and found["latency_error_ratio"] > 0 and found["chip"] == "8gen3"


def test_the_tables_show_latency_with_its_error_only(sdxl, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert cli.main(["plan", str(sdxl), "--latency-ms", "200", "--chip", "8elite"]) == 0
    out = capsys.readouterr().out
    (row,) = (line for line in out.splitlines() if line.startswith("latency, ms on Snapdragon 8 Elite"))
    assert row.count("±") == 2 and "(binds)" in row and "estimated, not measured" in out
    assert "320 -> " in out and "x4 -> x" in out


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--parameters-m", "4"], "no legal student meets parameters_m 4"),
        ([], "the budget has no limit"),
        (["--parameters-m", "390", "--steps", "melt"], "steps is"),
        (["--parameters-m", "390", "--latent", "0"], "latent is 0"),
    ],
)
def test_mistakes_on_the_command_line_are_told(sdxl, capsys, options, what):
    assert cli.main(["plan", str(sdxl), *options]) == 2
    assert what in capsys.readouterr().err


def test_a_folder_without_a_config_is_told(tmp_path, capsys):
    assert cli.main(["plan", str(tmp_path), "--macs-g", "1"]) == 2
    assert "there is no config.json of a U-Net" in capsys.readouterr().err
