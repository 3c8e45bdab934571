"""Budgets are met from below on the lattice, or refused with the limit that binds."""

import random
from dataclasses import replace

import pytest

from compress.cost import cost
from compress.errors import UserError
from compress.pruning.plan import Budget, plan_widths
from students.spec import LATTICE, NONE, SELF_CROSS
from tests.pruning.nets import STUDENT, TEACHER

BIG = replace(
    TEACHER,
    widths=(128, 128, 256),
    heads=(2, 2, 4),
    layers_per_block=(1, 1, 1),
    transformer_layers=(1, 1, 1),
    down_attention=(NONE, SELF_CROSS, SELF_CROSS),
    up_attention=(NONE, SELF_CROSS, SELF_CROSS),
)
GOAL = replace(BIG, separable=True, kv_heads=1, ff_mult=3, qk_norm=True)


@pytest.mark.slow
def test_random_budgets_are_met_from_below_by_legal_widths_that_cannot_grow():
    chance = random.Random(0)
    narrow = replace(GOAL, widths=(64, 64, 64), heads=(1, 1, 1))
    smallest, largest = (cost(spec, 8, 16, 32) for spec in (narrow, GOAL))
    for _ in range(6):
        share = chance.random()
        budget = Budget(
            parameters_m=smallest.parameters_m + share * (largest.parameters_m - smallest.parameters_m),
            macs_g=chance.choice([None, smallest.macs_g + chance.random() * (largest.macs_g - smallest.macs_g)]),
        )
        spec = plan_widths(GOAL, BIG, budget)
        assert spec.problems() == [] and budget.broken_by(spec) is None
        assert all(new <= old for new, old in zip(spec.widths, BIG.widths, strict=True))
        for stage, width in enumerate(spec.widths):
            if width < BIG.widths[stage]:
                wider = tuple(w + LATTICE * (i == stage) for i, w in enumerate(spec.widths))
                assert budget.broken_by(replace(spec, widths=wider, heads=tuple(w // LATTICE for w in wider)))


def test_no_limit_keeps_the_teachers_widths():
    assert plan_widths(GOAL, BIG, Budget()).widths == BIG.widths


@pytest.mark.parametrize("limit", ["parameters_m", "macs_g", "size_mb"])
def test_a_budget_below_the_smallest_student_is_refused(limit):
    with pytest.raises(UserError, match=f"no legal student meets {limit} 0.001") as caught:
        plan_widths(STUDENT, TEACHER, Budget(**{limit: 0.001}))
    assert "Raise the limit" in str(caught.value)
