"""The whole way from teacher to student: legal, measured, reloadable, and every tensor accounted for."""

from dataclasses import replace

import pytest
import torch

from compress.config.prune import PAIR, STEPS
from compress.pruning.calibration import predict, predictions
from compress.pruning.evolution import Plan, Samples, evolve, target
from compress.pruning.surgery import OPERATORS
from compress.pruning.unstructured import baseline, kept_parameters, masked
from students.init import Ledger, Transplant
from tests.pruning.families import reloaded
from tests.pruning.nets import STUDENT, TEACHER, batches, bench, draft, outputs


@pytest.fixture(scope="module")
def samples():
    return Samples(batches(2, 4), batches(2, 16, seed=3), batches(1, 4, seed=9))


@pytest.fixture(scope="module")
def evolution(samples):
    return evolve(draft().unet, Plan(STUDENT), samples, bench("taylor"))


@pytest.mark.slow
def test_the_goal_is_reached_by_steps_that_are_all_measured(evolution):
    assert evolution.draft.spec == STUDENT
    assert [row.step for row in evolution.rows] == ["teacher", *OPERATORS, PAIR]
    assert evolution.rows[0].velocity_mse == 0
    assert all(row.velocity_mse >= 0 and row.wall_s >= 0 for row in evolution.rows)
    fitted = {row.step for row in evolution.rows if row.velocity_mse_fitted is not None}
    assert fitted == {"depth", "separable", PAIR}  # depth takes a block away here
    by_step = {row.step: row for row in evolution.rows}
    for step in ("depth", "width", "separable", "multi_query", "feed_forward"):
        before = evolution.rows[[row.step for row in evolution.rows].index(step) - 1]
        assert by_step[step].parameters_m < before.parameters_m and by_step[step].macs_g < before.macs_g


@pytest.mark.slow
def test_the_student_reloads_to_identical_outputs(evolution, tmp_path):
    unet = evolution.draft.unet
    loaded = reloaded(unet, tmp_path)
    question = batches(1, seed=5)[0]
    with torch.no_grad():
        assert torch.equal(predict(loaded, question, pair=True), predict(unet, question, pair=True))


@pytest.mark.slow
def test_every_tensor_has_an_origin_in_the_teacher_or_is_said_to_be_new(evolution):
    table = evolution.ledger.table()
    assert set(table) == set(evolution.draft.unet.state_dict())
    teacher = set(draft().unet.state_dict())
    new = {name for name, row in table.items() if not row["tensors"]}
    assert all(set(row["tensors"]) <= teacher for row in table.values())
    assert all("encoder_hid_proj" in name or name.startswith("down_blocks.0.attentions") for name in new)
    pointwise = table["up_blocks.0.resnets.0.conv2.pointwise.weight"]
    assert pointwise["tensors"] == ["up_blocks.0.resnets.0.conv2.weight"]
    assert [step["operator"] for step in pointwise["steps"]] == [
        "compensate",
        "width",
        "separable",
        "compensate",
        "compensate",
    ]


@pytest.mark.slow
def test_what_was_kept_is_told_for_the_heat_map(evolution):
    kept = evolution.report["kept"]
    assert set(kept) == {"width", "feed_forward"}
    rows = [row for groups in kept.values() for row in groups.values()]
    assert all(0 < row["kept"] <= row["units"] and 0 < row["score_share"] <= 1 for row in rows)
    assert any(row["kept"] < row["units"] for row in rows)


@pytest.mark.slow
def test_with_the_teacher_as_the_goal_nothing_changes(samples):
    goal = replace(TEACHER, text_dim=64)  # a projection of normed tokens is (all but) the identity
    done = evolve(draft().unet, Plan(goal, STEPS[:-1], compensated=()), samples, bench())
    assert torch.allclose(outputs(done.draft.unet), outputs(draft().unet), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [("separable",), ("width", "feed_forward"), ("qk_norm", "cross_attention")])
def test_any_subset_of_steps_leaves_a_network_that_runs(steps, samples):
    done = evolve(draft().unet, Plan(STUDENT, steps, compensated=(PAIR,)), samples, bench("random"))
    assert done.draft.spec == target(TEACHER, STUDENT, steps)
    assert outputs(done.draft.unet).isfinite().all()


@pytest.mark.slow
def test_seeds_decide_everything():
    start = draft()

    def student(seed):
        workbench = bench("random", seed=seed)
        narrowed, _ = OPERATORS["width"].apply(start, STUDENT, workbench)
        return OPERATORS["cross_attention"].apply(narrowed, STUDENT, workbench)[0].unet.state_dict()

    first, again, other = student(1), student(1), student(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_transplant_refuses_wrong_shapes_and_names_what_is_missing():
    wanted = {"a": torch.Size([2]), "b": torch.Size([3])}
    transplant = Transplant("op", {"a": torch.zeros(2)}, wanted)
    with pytest.raises(ValueError, match=r"op: a is \(3,\), not \(2,\)"):
        transplant.put("a", torch.zeros(3), ["a"], "x")
    with pytest.raises(KeyError, match="no tensor c"):
        transplant.put("c", torch.zeros(3), ["a"], "x")
    transplant.keep_rest()
    with pytest.raises(ValueError, match="no source for 1 tensors"):
        transplant.state()


def test_a_ledger_follows_tensors_through_renaming():
    ledger = Ledger(["x", "y"])
    first = Transplant("one", {"x": torch.ones(1), "y": torch.ones(1)}, {"z": torch.Size([1])})
    first.put("z", torch.ones(1), ["x", "y"], "sum", 0.5)
    ledger.record(first)
    second = Transplant("two", first.made, {"w": torch.Size([1])})
    second.rename("w", "z")
    ledger.record(second)
    assert ledger.table()["w"] == {
        "tensors": ["x", "y"],
        "steps": [
            {"operator": "one", "method": "sum", "relative_error": 0.5},
            {"operator": "two", "method": "moved", "relative_error": None},
        ],
    }


@pytest.mark.slow
def test_nncf_masks_as_many_weights_as_the_student_lacks(samples):
    teacher = draft().unet
    total = sum(p.numel() for p in teacher.parameters())
    found = baseline(teacher, total // 2, samples.held_out, predictions(teacher, samples.held_out))
    assert found.parameters_m * 1e6 == pytest.approx(total / 2, rel=1e-3)
    assert found.ratio_kept == pytest.approx(0.5, rel=1e-3)
    less = baseline(teacher, total // 5, samples.held_out, predictions(teacher, samples.held_out))
    assert 0 < found.velocity_mse < less.velocity_mse
    assert kept_parameters(masked(teacher, samples.held_out[0], 0.25)) < total
    assert torch.equal(outputs(teacher), outputs(draft().unet))  # the teacher itself is not masked
