"""Any U-Net: each family is read, counted, pruned and reloaded by stock diffusers; ratio 0 is the identity."""

import random
from dataclasses import replace

import pytest
import torch
from diffusers import DreamLiteUNetModel, UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.config.prune import PruneConfig
from compress.cost import parameters, skeleton
from compress.pruning.calibration import predictions
from compress.pruning.criteria import CRITERIA
from compress.pruning.criteria.eco_diff import EcoDiff, MaskSearch
from compress.pruning.evolution import Plan, Samples, evolve, rehouse, target
from compress.pruning.reach import unreachable
from compress.pruning.surgery import OPERATORS, Bench
from students.init import shapes
from students.presets import dreamlite_100m, dreamlite_200m, dreamlite_300m, dreamlite_full
from students.spec import CROSS, LATTICE, NONE, RESNET, SELF_CROSS, StudentSpec
from tests.pruning.families import (
    NARROW,
    PUBLISHED,
    answers,
    housed,
    narrower,
    reloaded,
    samples,
    shallower,
    some_slow,
    stock,
)

SELF_MADE = ("depth", "width", "feed_forward")  # operators that can be carried out where nothing is to change


def bench(spec, criterion="magnitude", seed=0):
    return Bench(samples(spec), criterion, torch.Generator().manual_seed(seed))


def pruned(draft, goal, workbench, steps=("depth", "width")):
    """The student that the operators make, in the class that the goal asks for."""
    for step in steps:
        draft, _ = OPERATORS[step].apply(draft, goal, workbench)
    return draft.as_plain() if goal.plain else draft


class BriefEcoDiff(EcoDiff):
    """The same search, two steps long instead of fifty."""

    def __init__(self, unet, generator):
        super().__init__(unet, generator, MaskSearch(steps=2, sampling_steps=1))


# ---- specs ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_network_is_read_and_counted(name):
    config, spec, count, published_m = PUBLISHED[name]
    assert StudentSpec.from_config(config) == spec and spec.problems() == []
    assert parameters(spec) == count
    assert count / 1e6 == pytest.approx(published_m, rel=0.03)


@pytest.mark.parametrize("name", NARROW)
def test_the_stock_class_has_the_same_tensors_under_the_same_names(name):
    spec = NARROW[name]
    plain = replace(spec, plain=True)
    for said in [spec] if plain.unexpressed() else {spec, plain}:
        net = skeleton(said)
        assert isinstance(net, UNet2DConditionModel) and isinstance(net, DreamLiteUNetModel) != said.plain
        assert shapes(net) == shapes(skeleton(spec))
        assert replace(StudentSpec.from_config(net.config, spec.pooled_dim), plain=said.plain) == said


@pytest.mark.parametrize(
    ("preset", "widths", "depths", "count"),
    [
        (dreamlite_300m, (256, 448, 768), (1, 2, 4), 297_462_916),
        (dreamlite_200m, (192, 320, 640), (1, 2, 4), 202_531_332),
        (dreamlite_100m, (128, 256, 448), (1, 2, 3), 92_228_996),
    ],
)
def test_smaller_dreamlites_lie_on_the_lattice_within_the_full_one(preset, widths, depths, count):
    spec, full = preset(), dreamlite_full()
    assert (spec.widths, spec.transformer_layers, parameters(spec)) == (widths, depths, count)
    assert spec.problems() == [] == unreachable(spec, full)
    assert target(full, spec, ("depth", "width")) == spec


PLAIN = replace(NARROW["SDXL"], plain=True)


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        (replace(PLAIN, ff_mult=3), "a feed-forward of 3 times the width"),
        (replace(PLAIN, kv_heads=1), "1 key/value heads"),
        (replace(PLAIN, separable=True), "separable convolutions"),
        (replace(PLAIN, qk_norm=True), "normed queries and keys"),
        (replace(PLAIN, text_dim=32), "a normed text projection"),
        (replace(PLAIN, pooled_dim=None), "a size embedding without pooled text"),
        (replace(PLAIN, up_attention=(NONE, CROSS, SELF_CROSS)), "transformers without self-attention"),
        (replace(PLAIN, plain=False, middle=RESNET), "no middle block of a single residual block"),
    ],
)
def test_what_a_config_cannot_express_is_told_and_not_built(spec, what):
    assert any(what in told and remedy.endswith(".") for told, remedy in spec.problems())
    assert any(what in told for told, _ in unreachable(spec, NARROW["SDXL"]))
    with pytest.raises(ValueError, match=what):
        spec.build()


@pytest.mark.parametrize(
    ("teacher", "change", "what"),
    [
        ("SD 1.5", {"heads": (1, 2, 3, 3), "heads_fixed": False}, "heads of stage 0 are 64 wide, the teacher's 32"),
        ("SD 2.1", {"widths": (64, 128, 192, 128)}, "part stages 2 and 3"),
        ("SSD-1B", {"down_depths": None, "up_depths": None}, "way up are (2, 2, 2), the teacher has (2, 1, 1)"),
        ("SSD-1B", {"layers_per_block": (2, 1, 1), "up_depths": ((), (2, 1), (2, 2))}, "is to keep depths (2, 1)"),
        ("KOALA", {"transformer_layers": (0, 1, 3)}, "way down are (3,), the teacher has (2,)"),
        ("SD 2.1", {"transformer_layers": (1, 1, 1, 2)}, "the middle block is to have 2"),
        ("DreamLite", {"widths": (64, 64, 64), "heads_fixed": True}, "share or norm their keys"),
    ],
)
def test_what_a_teacher_cannot_become_is_told(teacher, change, what):
    found = unreachable(replace(NARROW[teacher], **change), NARROW[teacher])
    assert any(what in told and remedy.endswith(".") for told, remedy in found), found


# ---- identity -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", some_slow(NARROW, fast=()))
def test_with_nothing_to_remove_every_operator_is_the_identity(name):
    spec = NARROW[name]
    teacher = stock(spec)
    wanted, draft = answers(teacher, spec), rehouse(teacher, spec.pooled_dim)
    assert draft.spec == spec
    assert torch.allclose(answers(draft.unet, spec), wanted, atol=1e-5)
    for step in SELF_MADE:
        workbench = bench(spec)
        draft = draft.become(spec, OPERATORS[step].transplant(draft, spec, workbench))
        assert torch.allclose(answers(draft.unet, spec), wanted, atol=1e-5), step
    for step in OPERATORS:
        draft, _ = OPERATORS[step].apply(draft, spec, bench(spec))
    assert torch.allclose(answers(draft.unet, spec), wanted, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SD 1.5", "SSD-1B"])
def test_the_whole_chain_is_the_identity_and_ends_in_the_teachers_class(name):
    spec = NARROW[name]
    teacher, goal = stock(spec), replace(NARROW[name], plain=True)
    drawn = Samples(samples(spec), samples(spec, 1), samples(spec, 2))
    done = evolve(teacher, Plan(goal, compensated=()), drawn, bench(spec))
    assert done.draft.spec == goal and type(done.draft.unet) is UNet2DConditionModel
    assert done.rows[-1].step == "plain" and done.rows[-1].velocity_mse < 1e-10
    assert torch.allclose(answers(done.draft.unet, spec), answers(teacher, spec), atol=1e-5)


@pytest.mark.slow
def test_a_teacher_that_takes_pairs_is_asked_with_pairs():
    """DreamLite pruned further: its answers to the target alone would be no reference."""
    spec = NARROW["DreamLite"]
    teacher, drawn = stock(spec), [[replace(samples(spec, seed)[0], paired=True)] for seed in range(3)]
    alone = samples(spec)[0]
    asked = predictions(teacher, drawn[0])
    assert torch.equal(asked[0], predictions(teacher, [alone], pair=True)[0])
    assert not torch.allclose(asked[0], predictions(teacher, [alone])[0], atol=1e-3)
    plan = Plan(spec, compensated=("pair",))
    done = evolve(teacher, plan, Samples(*drawn), bench(spec))
    assert [row.macs_g for row in done.rows] == [done.rows[0].macs_g] * len(done.rows)
    assert max(row.error for row in done.rows) < 1e-8


@pytest.mark.slow
def test_thinner_heads_compute_the_same_where_the_lost_dimensions_were_silent():
    """SD 1.x keeps its 8 heads, so a narrower stage makes them thinner; softmax's scale must not follow."""
    spec = NARROW["SD 1.5"]
    goal = replace(spec, widths=(64, 128, 128, 128))
    draft = rehouse(stock(spec))
    place = "down_blocks.2.attentions.0.transformer_blocks.0.attn1"
    attention = draft.unet.get_submodule(place)
    silent = torch.arange(192).reshape(2, 96)[:, ::3].flatten()  # 32 of the 96 dimensions of both heads
    for layer in (attention.to_q, attention.to_k, attention.to_v):
        layer.weight[silent] = 0
    attention.to_out[0].weight[:, silent] = 0
    workbench = bench(spec)
    student, _ = OPERATORS["width"].apply(draft, goal, workbench)
    thin = student.unet.get_submodule(place)
    assert (thin.heads, thin.to_q.weight.shape[0]) == (2, 128)
    columns = workbench.report["kept"]["width"]["down_blocks.2.attentions.0.proj_in"]["units_kept"]
    x_btc, wide_btc = torch.randn(1, 5, 128), torch.zeros(1, 5, 192)
    wide_btc[..., columns] = x_btc
    assert torch.allclose(thin(x_btc), attention(wide_btc)[..., columns], atol=1e-5)


# ---- students -------------------------------------------------------------------------------------------------------
def check(spec, goal, workbench, folder, steps=("depth", "width")):
    """The student of a stock teacher runs, is what was planned, lies on the lattice and comes back as it was."""
    draft = pruned(housed(spec), goal, workbench, steps)
    planned, spec = target(spec, goal, steps), draft.spec
    made = answers(draft.unet, spec)
    assert spec == planned and spec.problems() == []
    assert not any(width % LATTICE for width in spec.widths)
    assert made.isfinite().all()
    assert sum(p.numel() for p in draft.unet.parameters()) == parameters(spec)
    again = reloaded(draft.unet, folder)
    assert torch.equal(answers(again, spec), made)
    samplers = [module for name, module in again.named_modules() if name.endswith("samplers.0")]
    assert samplers and all(module.channels == module.conv.in_channels for module in samplers)
    assert replace(StudentSpec.from_config(again.config, spec.pooled_dim), plain=spec.plain) == spec


@pytest.mark.slow
def test_forty_random_plans_over_all_families_and_criteria(tmp_path, monkeypatch):
    """Every family is pruned by every criterion, in its own class as often as in DreamLite's where both can hold it."""
    monkeypatch.setitem(CRITERIA, "eco_diff", BriefEcoDiff)
    chance, plans = random.Random(0), [(family, criterion) for criterion in CRITERIA for family in NARROW]
    for number, (family, criterion) in enumerate(chance.sample(plans, 40)):
        spec = NARROW[family]
        thinner = shallower(spec) if chance.random() < 0.3 else spec
        goal, steps = narrower(thinner, chance.choice), ("width",) if thinner == spec else ("depth", "width")
        plain = replace(goal, plain=True)
        goal = plain if chance.random() < 0.5 and not plain.unexpressed() else goal
        check(spec, goal, bench(spec, criterion, number), tmp_path / str(number), steps)


@st.composite
def small_unets(draw):
    """Plain U-Nets of two stages: any attention, depth, projection, heads and middle block that diffusers builds."""
    widths = (64, 128)
    attention = tuple(draw(st.sampled_from([NONE, SELF_CROSS])) for _ in widths)
    fixed = draw(st.booleans())
    pooled = draw(st.sampled_from([None, 32]))
    return StudentSpec(
        widths=widths,
        layers_per_block=(1, 1),
        transformer_layers=(1, draw(st.sampled_from([1, 2]))),
        heads=(4, 4) if fixed else (1, 2),
        heads_fixed=fixed,
        down_attention=attention,
        up_attention=attention,
        cross_dim=32,
        pooled_dim=pooled,
        size_dim=32 if pooled else 0,
        size_values=6 if pooled else 0,
        linear_projection=draw(st.booleans()),
        middle=draw(st.sampled_from([NONE, RESNET, SELF_CROSS])),
        sample_size=8,
        plain=True,
    )


@settings(max_examples=3, deadline=None, derandomize=True, database=None)
@given(small_unets())
def test_any_small_unet_is_pruned_and_reloaded(tmp_path_factory, spec):
    check(spec, narrower(spec, min), bench(spec), tmp_path_factory.mktemp("student"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SD 2.1", "SSD-1B"])
def test_other_families_become_dreamlites_too(name, tmp_path):
    """All operators in a row; what the published student has and the teacher's text cannot give is left out."""
    spec = NARROW[name]
    lowest = spec.stages - 1
    config = PruneConfig(
        widths=(64, 128, 128, 128)[: spec.stages], layers_per_block=1, transformer_layers=(1,) * (lowest + 1)
    )
    goal = config.goal(spec)
    assert unreachable(target(spec, goal, config.steps), spec) == []
    check(spec, goal, bench(spec), tmp_path, steps=config.steps)
