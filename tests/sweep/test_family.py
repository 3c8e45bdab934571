"""The preset space: whatever is drawn can be carried out, and nothing is asked that would make no difference."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pytest

from compress.config.flow import FlowConfig
from compress.config.prune import PruneConfig
from compress.config.quantize import QuantizeConfig
from compress.config.stream import StreamConfig
from compress.recipe import Recipe
from compress.sweep import load_sweep
from compress.sweep.family import draw_quantization, draw_student, draw_training
from compress.sweep.limits import LABELS, price_of, student_objective, teacher_folder
from compress.sweep.trial import value_of
from recipes.scenes_full import TEACHER

SDXL = StreamConfig(widths=(320, 640, 1280), layers_per_block=2, transformer_layers=(1, 2, 10))
SCENES = PruneConfig(widths=(64, 128, 256), transformer_layers=(1, 1, 2), ff_mult=4)
FLOW = FlowConfig(name="t2i", steps=10)


def trials(count: int = 60) -> list[optuna.Trial]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [study.ask() for _ in range(count)]


@pytest.mark.parametrize("widest", [SCENES, SDXL, replace(SDXL, calibrated=True)])
def test_every_student_is_legal_and_within_the_widest(widest: PruneConfig) -> None:
    criteria = set()
    for trial in trials():
        made = draw_student(trial, widest)
        assert made.problems() == [] and type(made) is type(widest)
        assert all(
            low % 64 == 0 and high / 4 <= low <= high for low, high in zip(made.widths, widest.widths, strict=True)
        )
        assert made.transformer_layers <= widest.transformer_layers and 2 <= made.ff_mult <= widest.ff_mult
        criteria.add(made.criterion)
    assert "random" not in criteria and len(criteria) >= (1 if type(widest) is StreamConfig else 6)


def test_choices_that_make_no_difference_are_not_asked() -> None:
    seen = set()
    for trial in trials():
        made = draw_student(trial, SCENES)
        one, cut = trial.params["kv_heads_one"], made.transformer_layers != (1, 1, 2)
        assert ("kv_merge" in trial.params) == one == ("multi_query" in made.steps)
        assert ("layer_rule" in trial.params) == cut and (made.layer_rule is None) != cut
        assert not {"transformer_layers_0", "transformer_layers_1"} & set(trial.params)  # 1 is the only choice
        seen.add((one, cut))
    assert len(seen) == 4
    for trial in trials():
        flow, quantize = draw_training(trial, FLOW), draw_quantization(trial, QuantizeConfig())
        assert flow.problems() == [] and quantize.problems() == []
        assert ("distill_weight" in trial.params) == trial.params["distill"] == (flow.distill_weight > 0)
        assert flow.distill_weight > 0 or flow.data_weight == 1.0  # something is learned from
        assert ("headroom_ratio" in trial.params) == (quantize.activation_ranges == "min_max")
        assert ("bias_correction" in trial.params) == (quantize.rounding == "nearest")
        assert quantize.wide_weights_mb == 0
    assert 0 <= draw_quantization(trials(1)[0], QuantizeConfig(), wide_mb=2.0).wide_weights_mb <= 2


def test_a_widest_without_a_choice_asks_for_none() -> None:
    single = replace(SCENES, widths=(64, 64, 64), layers_per_block=1, transformer_layers=(1, 1, 1), ff_mult=2, steps=())
    (trial,) = trials(1)
    made = draw_student(trial, replace(single, compensated=()), criteria=("taylor",))
    assert trial.params == {} and made == replace(single, compensated=())


@pytest.mark.slow  # loads what prunes
def test_what_the_recipe_alone_tells_is_an_objective() -> None:
    made = load_sweep("scenes_family")
    latency = made.objectives[-1]
    assert latency.label == LABELS["latency_ms"] and not latency.maximize
    (trial,) = trials(1)
    recipe = made.sample(trial)
    expected = price_of(
        [stage for stage in recipe.stages if isinstance(stage, PruneConfig)], teacher_folder(TEACHER), "8gen3"
    )
    assert value_of(latency, recipe, teacher_folder(TEACHER)) == expected["latency_ms"] > 0
    smaller = Recipe(name="s", description="", teacher=TEACHER, stages=(replace(SCENES, widths=(64, 64, 64)),))
    larger = replace(smaller, stages=(SCENES,))
    for name in LABELS:
        objective = student_objective(name)
        assert value_of(objective, smaller, teacher_folder(TEACHER)) < value_of(
            objective, larger, teacher_folder(TEACHER)
        )


@pytest.mark.slow
def test_every_student_can_be_reached_from_the_teacher() -> None:
    for trial in trials():
        assert price_of([draw_student(trial, SCENES)], teacher_folder(TEACHER), "8gen3")["parameters_m"] > 0
