"""Limits on students come from their specs, and agree with what the networks really have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compress.config.prune import STEPS, PruneConfig
from compress.cost import cost
from compress.errors import UserError
from compress.judge import spec_of
from compress.recipe import Recipe
from compress.sweep.limits import student_limit, teacher_folder
from recipes.scenes_full import TEACHER

STUDENT = PruneConfig(widths=(64, 64, 128))


def recipe(config: PruneConfig = STUDENT) -> Recipe:
    return Recipe(name="one", description="", teacher=TEACHER, stages=(config,))


@pytest.mark.slow  # loads what prunes
def test_a_limit_is_on_what_the_student_will_have() -> None:
    goal = STUDENT.goal(spec_of(teacher_folder(TEACHER)))
    real = cost(goal, goal.sample_size, 2 * goal.sample_size, 77)  # parameters and bytes do not depend on the text
    millions, megabytes = (student_limit(name, 5.0).value(recipe()) for name in ("parameters_m", "size_mb_w8_padded"))
    assert (millions, megabytes) == pytest.approx((real.parameters_m, real.size_mb))
    limit = student_limit("parameters_m", millions / 2)
    assert limit.label == "parameters (M)" and limit.excess(limit.value(recipe())) == pytest.approx(1.0)
    assert student_limit("parameters_m", millions).excess(millions) <= 0


@pytest.mark.slow
def test_two_stages_that_share_the_steps_cost_what_one_does() -> None:
    halfway = replace(STUDENT, name="first", widths=(64, 128, 256), ff_mult=4, steps=STEPS[2:5], compensated=())
    rest = tuple(step for step in STEPS if step not in halfway.steps)
    two = replace(recipe(), stages=(halfway, replace(STUDENT, steps=rest, compensated=())))
    for name in ("parameters_m", "macs_g", "size_mb_w8_padded", "latency_ms"):
        limit = student_limit(name, 1.0)
        assert limit.value(two) == limit.value(recipe())
        assert student_limit(name, 1.0, stage="first").value(two) > limit.value(two)


@pytest.mark.slow
def test_wider_costs_more_in_every_quantity() -> None:
    wider = recipe(replace(STUDENT, widths=(64, 128, 256)))
    for name in ("parameters_m", "macs_g", "size_mb_w8_padded", "latency_ms"):
        limit = student_limit(name, 1.0)
        assert limit.value(wider) > limit.value(recipe()) > 0


def test_what_is_not_known_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"quantity is 'speed'\. Use one of parameters_m, macs_g"):
        student_limit("speed", 1.0)
    with pytest.raises(UserError, match=r"^constraint: chip is '9gen9'"):
        student_limit("latency_ms", 1.0, chip="9gen9")
    with pytest.raises(UserError, match=r"there is no stage 'cut' in one"):
        student_limit("latency_ms", 1.0, stage="cut").value(recipe())
    with pytest.raises(UserError, match="stage 'prune' of 'one' prunes no teacher of ours"):
        student_limit("macs_g", 1.0).value(replace(recipe(), teacher=None))
