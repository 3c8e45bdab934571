"""Least squares: exact where it can be, never worse on its own samples, and still itself where nothing is wrong."""

from dataclasses import replace

import pytest
import torch

from compress.pruning.calibration import predictions, velocity_mse
from compress.pruning.compensate import compensate
from compress.pruning.features import TeacherFeatures
from compress.pruning.least_squares import affine_fit, ridge_fit
from compress.pruning.lineage import Lineage
from compress.pruning.surgery import OPERATORS
from students.spec import CROSS
from tests.pruning.nets import STUDENT, TEACHER, batches, bench, draft, outputs


def test_ridge_finds_the_map_that_made_the_data():
    phi, true = torch.randn(100, 6), torch.randn(3, 6)
    found, before, after = ridge_fit(phi, phi @ true.T, torch.zeros(3, 6), [1e-9])
    assert torch.allclose(found, true, atol=1e-4)
    assert before == pytest.approx(1.0) and abs(after) < 1e-6  # sums of products are taken in single precision


def test_ridge_stays_where_the_data_say_nothing():
    """Feature 1 is never seen: its weight remains; feature 0 is refitted."""
    phi = torch.tensor([[1.0, 0.0], [2.0, 0.0]]).repeat(5, 1)
    found, _, _ = ridge_fit(phi, 3 * phi[:, :1], torch.tensor([[1.0, 7.0]]), [1e-9])
    assert found[0].tolist() == pytest.approx([3.0, 7.0], abs=1e-5)


def test_a_strong_ridge_changes_nothing():
    start = torch.randn(3, 6)
    found, _, _ = ridge_fit(torch.randn(50, 6), torch.randn(50, 3), start, [1e9])
    assert torch.allclose(found, start, atol=1e-6)


def test_what_does_not_help_on_other_samples_is_not_done():
    """Pure noise: whatever fits the first rows fits the last ones worse than the start does."""
    start = torch.zeros(1, 40)
    found, before, after = ridge_fit(torch.randn(50, 40), torch.randn(50, 1), start, [1e-3])
    assert torch.equal(found, start) and before == after == pytest.approx(1.0)


def test_affine_fit_by_hand():
    scale, shift, error = affine_fit(torch.tensor([[0.0], [1.0]]), torch.tensor([[5.0], [7.0]]))
    assert (float(scale), float(shift), error) == (pytest.approx(2.0), pytest.approx(5.0), pytest.approx(0.0))


@pytest.mark.slow
def test_a_copy_of_the_teacher_is_left_as_it_is():
    teacher, student = draft(), draft()
    features = TeacherFeatures(teacher.unet, batches(2, 8, seed=3))
    errors = compensate(student, features, Lineage(), pair=False)
    assert max(before for before, _ in errors.values()) < 1e-9
    assert torch.allclose(outputs(student.unet), outputs(teacher.unet), atol=1e-3)


GOALS = {
    "depth": replace(TEACHER, transformer_layers=(1, 1)),
    "width": replace(TEACHER, widths=(64, 128), heads=(1, 2)),
    "self_attention": replace(TEACHER, up_attention=("none", CROSS)),
    "separable": replace(TEACHER, separable=True),
    "multi_query": replace(TEACHER, kv_heads=1),
    "feed_forward": replace(TEACHER, ff_mult=2),
}


FAST = ("separable",)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in GOALS]
)
def test_it_lowers_the_velocity_error_of_every_operator(name):
    teacher, workbench = draft(), bench()
    student, _ = OPERATORS[name].apply(teacher, GOALS[name], workbench)
    held_out = batches(1, 8, seed=9)
    reference = predictions(teacher.unet, held_out)
    before = velocity_mse(student.unet, held_out, reference)
    features = TeacherFeatures(teacher.unet, batches(3, 16, seed=3))
    errors = compensate(student, features, workbench.lineage, pair=False)
    assert velocity_mse(student.unet, held_out, reference) < before
    assert all(after <= before + 1e-6 for before, after in errors.values())


@pytest.mark.slow
def test_a_pair_is_fitted_on_its_target_half():
    """A copy of the teacher, given a pair, errs by what the other panel does to norms and attention."""
    teacher, student = draft(), draft()
    held_out = batches(1, 8, seed=9)
    reference = predictions(teacher.unet, held_out)
    before = velocity_mse(student.unet, held_out, reference, pair=True)
    compensate(student, TeacherFeatures(teacher.unet, batches(2, 16, seed=3)), Lineage(), pair=True)
    assert velocity_mse(student.unet, held_out, reference, pair=True) < before


def test_lineage_names_what_a_layer_stands_for():
    lineage = Lineage()
    lineage.keep("up_blocks.0.resnets", [0, 2], 4)
    lineage.keep("up_blocks.0.attentions.1.transformer_blocks", [1], 3)
    assert lineage.source("up_blocks.0.resnets.1.conv1") == "up_blocks.0.resnets.2.conv1"
    assert lineage.reach("up_blocks.0.resnets.0") == "up_blocks.0.resnets.1"
    assert lineage.reach("up_blocks.0.resnets.1") == "up_blocks.0.resnets.3"
    assert lineage.reach("up_blocks.0.attentions.1.transformer_blocks.0").endswith("transformer_blocks.2")
    assert (
        lineage.source("down_blocks.0.resnets.0")
        == lineage.reach("down_blocks.0.resnets.0")
        == "down_blocks.0.resnets.0"
    )
    assert STUDENT.widths == (64, 128)
