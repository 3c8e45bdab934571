"""Budgets are met from below within 1 % on the lattice, or refused with the limit that binds; no weight is needed."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.config.budget import LIMITS, Budget
from compress.errors import UserError
from compress.pruning.budget import Forward, knobs_of, plan, price
from compress.pruning.budget.lattice import BLOCKS, WIDTHS, graded, spec_at
from compress.pruning.budget.search import TOLERANCE, VISITS
from students.presets import sdxl_full
from students.spec import CROSS, LATTICE, NONE, SELF_CROSS, StudentSpec, with_heads

FORWARD = Forward(16, 32, 20)
LARGE = with_heads(
    StudentSpec(
        widths=(128, 256, 384),
        layers_per_block=(2, 1, 2),
        transformer_layers=(1, 2, 4),
        heads=(1, 1, 1),
        down_attention=(CROSS, CROSS, SELF_CROSS),
        up_attention=(NONE, CROSS, SELF_CROSS),
        cross_dim=96,
        text_dim=64,
        size_dim=32,
        size_values=2,
        kv_heads=1,
        ff_mult=3,
        qk_norm=True,
        separable=True,
    )
)


def cost_of(spec, chip="8gen3"):
    found = price(spec, FORWARD, chip)
    return {name: getattr(found, name) for name in LIMITS}


def every_student(largest):
    """All legal students under `largest`, smallest first."""
    knobs = knobs_of(largest, largest.widths)
    points = product(*(range(len(knob.values)) for knob in knobs))
    specs = (spec_at(largest, knobs, point) for point in points)
    return [spec for spec in specs if not spec.problems() and graded(spec, largest)]


@pytest.mark.parametrize("limit", LIMITS)
def test_a_budget_as_large_as_the_largest_keeps_it_whole(limit):
    whole = cost_of(LARGE)[limit]
    found = plan(LARGE, Budget(**{limit: whole}), FORWARD)
    assert found.spec == LARGE and found.binding == limit and found.use == {limit: 1.0}
    above = plan(LARGE, Budget(**{limit: 2 * whole}), FORWARD)
    assert above.spec == LARGE and above.binding is None


@pytest.mark.parametrize("limit", LIMITS)
def test_more_budget_buys_more(limit):
    whole = cost_of(LARGE)[limit]
    costs = [
        cost_of(plan(LARGE, Budget(**{limit: share * whole}), FORWARD).spec)[limit] for share in (0.2, 0.35, 0.5, 0.8)
    ]
    assert costs == sorted(costs)
    assert all(
        (1 - TOLERANCE) * share <= cost / whole <= share
        for cost, share in zip(costs, (0.2, 0.35, 0.5, 0.8), strict=True)
    )


@st.composite
def questions(draw):
    """A small largest student of any operators, and one to three limits somewhere in its reach."""
    stages = draw(st.integers(1, 3))
    widths = sorted(draw(st.lists(st.sampled_from((64, 128, 192, 256)), min_size=stages, max_size=stages)))
    kinds = [draw(st.sampled_from((NONE, CROSS, SELF_CROSS))) for _ in range(stages - 1)]
    largest = StudentSpec(
        widths=tuple(widths),
        layers_per_block=tuple(draw(st.integers(1, 2)) for _ in range(stages)),
        transformer_layers=tuple(draw(st.integers(1, 3)) for _ in range(stages)),
        heads=(1,) * stages,
        down_attention=(*kinds, SELF_CROSS),
        up_attention=(*kinds, SELF_CROSS),
        cross_dim=64,
        kv_heads=draw(st.sampled_from((None, 1))),
        ff_mult=draw(st.integers(1, 4)),
        separable=draw(st.booleans()),
    )
    names = draw(st.lists(st.sampled_from(LIMITS), min_size=1, max_size=3, unique=True))
    shares = {name: draw(st.floats(0.01, 1.2)) for name in names}
    return with_heads(largest), shares, draw(st.sampled_from(("8gen2", "8elite")))


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(questions())
def test_every_plan_meets_its_budget_or_says_what_binds(question):
    largest, shares, chip = question
    whole = cost_of(largest, chip)
    limits = {name: share * whole[name] for name, share in shares.items()}
    budget = Budget(**limits, chip=chip)
    try:
        found = plan(largest, budget, FORWARD)
    except UserError as error:
        refusal = str(error)
    else:
        costs = cost_of(found.spec, chip)
        assert found.spec.problems() == [] and all(width % LATTICE == 0 for width in found.spec.widths)
        assert all(costs[name] <= limit for name, limit in limits.items())
        assert found.spec == largest or max(found.use.values()) >= 1 - TOLERANCE
        for name in ("widths", "transformer_layers", "layers_per_block"):
            assert all(new <= old for new, old in zip(getattr(found.spec, name), getattr(largest, name), strict=True))
        return
    assert any(f"{name} {limit:g}" in refusal for name, limit in limits.items())
    students = [cost_of(spec, chip) for spec in every_student(largest)]
    uses = [max(costs[name] / limit for name, limit in limits.items()) for costs in students]
    assert not any(1 - TOLERANCE <= use <= 1 for use in uses), "one would have done"
    assert ("smallest" in refusal) == (min(uses) > 1)


def test_several_limits_are_kept_at_once_and_the_fullest_is_named():
    whole = cost_of(LARGE)
    budget = Budget(parameters_m=0.5 * whole["parameters_m"], latency_ms=0.2 * whole["latency_ms"])
    found = plan(LARGE, budget, FORWARD)
    assert max(found.use.values()) <= 1 and found.use[found.binding] == max(found.use.values()) >= 0.99


def test_a_budget_below_the_smallest_student_names_the_limit_and_the_student():
    with pytest.raises(UserError) as caught:
        plan(LARGE, Budget(parameters_m=0.1, macs_g=1e6), FORWARD)
    assert "no legal student meets parameters_m 0.1: the smallest (widths 64/64/64, transformer blocks 1/1/1" in str(
        caught.value
    )
    assert "macs_g" not in str(caught.value)


def test_a_lattice_that_is_too_coarse_is_told_and_its_remedy_works():
    one = replace(LARGE, layers_per_block=(1, 1, 1), transformer_layers=(1, 1, 1), ff_mult=1)
    narrow = with_heads(replace(one, widths=(64, 64, 128)))
    below = price(with_heads(replace(narrow, widths=(64, 64, 64))), FORWARD, "8gen3").parameters_m
    with pytest.raises(UserError, match=r"too coarse for parameters_m .*: no legal student uses 99 %") as caught:
        plan(narrow, Budget(parameters_m=1.1 * below), FORWARD, streams=(1, 1, 2))
    asked = float(str(caught.value).partition("Ask for parameters_m ")[2].partition(",")[0])
    assert plan(narrow, Budget(parameters_m=asked), FORWARD, streams=(1, 1, 2)).spec.widths == (64, 64, 64)


def test_operators_that_make_no_legal_student_are_named():
    blind = replace(LARGE, down_attention=(CROSS,) * 3, up_attention=(NONE, CROSS, CROSS))
    with pytest.raises(UserError, match="the lowest stage has no self-attention"):
        plan(blind, Budget(parameters_m=0.5 * cost_of(blind)["parameters_m"]), FORWARD)


def test_stages_of_one_residual_stream_keep_one_width():
    tied = with_heads(replace(LARGE, widths=(128, 256, 256)))
    for share in (0.3, 0.5, 0.7):
        found = plan(tied, Budget(parameters_m=share * cost_of(tied)["parameters_m"]), FORWARD).spec
        assert found.widths[1] == found.widths[2]


def test_what_is_fixed_stays():
    budget = Budget(parameters_m=0.7 * cost_of(LARGE)["parameters_m"])
    assert plan(LARGE, budget, FORWARD, fixed=(WIDTHS,)).spec.widths == LARGE.widths
    assert plan(LARGE, budget, FORWARD, fixed=(BLOCKS,)).spec.transformer_layers == LARGE.transformer_layers


def test_sdxl_is_planned_after_few_students():
    """A visit costs about a millisecond, and the lattice has 1.4 million points."""
    for budget in (Budget(parameters_m=390), Budget(latency_ms=100, size_mb_w8_padded=500), Budget(macs_g=900)):
        found = plan(sdxl_full(), budget, Forward(128, 256, 77))
        assert found.visited < VISITS / 10 and found == plan(sdxl_full(), budget, Forward(128, 256, 77))


@pytest.mark.parametrize(
    ("budget", "what"),
    [
        (Budget(), "the budget has no limit"),
        (Budget(parameters_m=-1.0), "parameters_m is -1.0"),
        (Budget(latency_ms=float("nan")), "latency_ms is nan"),
        (Budget(macs_g=1.0, chip="phone"), "chip is 'phone'"),
        (Budget(macs_g=1.0, allocation="fair"), "allocation is 'fair'"),
    ],
)
def test_a_mistaken_budget_is_refused(budget, what):
    with pytest.raises(UserError, match=what):
        plan(LARGE, budget, FORWARD)
