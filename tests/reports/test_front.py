"""Fronts and volumes against values worked out by hand."""

import itertools
import random

import pytest

from reports.study.front import coverage, dominates, front, hypervolume, unit_box


def test_equal_points_do_not_beat_each_other():
    assert dominates((1, 2), (1, 3))
    assert not dominates((1, 2), (1, 2))
    assert not dominates((1, 3), (2, 2))
    assert front([(1, 2), (1, 2), (1, 3)]) == [0, 1]


def test_the_front_agrees_with_its_definition():
    rng = random.Random(0)
    points = [tuple(rng.randint(0, 9) for _ in range(3)) for _ in range(200)]
    expected = [i for i, p in enumerate(points) if not any(dominates(q, p) for q in points)]
    assert front(points) == expected


@pytest.mark.parametrize(
    ("points", "reference", "volume"),
    [
        ([], (1, 1), 0),
        ([(1, 1)], (3, 4), 6),
        ([(1, 3), (2, 2), (3, 1)], (4, 4), 6),  # stairs: 3 columns of height 1, 2 and 3
        ([(1, 3), (2, 2), (3, 1), (2, 3), (3, 3)], (4, 4), 6),  # the beaten add nothing
        ([(0, 0), (5, 5)], (4, 4), 16),  # what lies beyond the reference adds nothing
        ([(4, 0)], (4, 4), 0),  # nor does what lies on its border
        ([(0, 0, 0)], (1, 2, 3), 6),
        ([(0, 0, 1), (1, 1, 0)], (2, 2, 2), 5),  # boxes of 4 and 2 that share one of 1
        ([(2, 1, 1), (1, 2, 1), (1, 1, 2)], (3, 3, 3), 7),  # 3 x 4 - 3 x 2 + 1
    ],
)
def test_volumes_worked_out_by_hand(points, reference, volume):
    assert hypervolume(points, reference) == pytest.approx(volume)
    assert hypervolume(points[::-1], reference) == pytest.approx(volume)


def test_a_volume_of_whole_points_counts_the_cells_below_them():
    rng = random.Random(1)
    points = [tuple(rng.randint(0, 6) for _ in range(3)) for _ in range(30)]
    cells = itertools.product(range(6), repeat=3)
    covered = sum(any(all(a <= b for a, b in zip(p, cell, strict=True)) for p in points) for cell in cells)
    assert hypervolume(points, (6, 6, 6)) == covered


def test_coverage_grows_point_by_point():
    assert coverage([(2, 2), (3, 3), (1, 3), (2, 2)], (4, 4)) == pytest.approx([4, 4, 5, 5])


def test_the_unit_box_runs_from_best_to_worst():
    own = (None, None)
    assert unit_box([(1.0, 30.0), (3.0, 10.0), (2.0, 20.0)], own) == [(0.0, 1.0), (1.0, 0.0), (0.5, 0.5)]
    assert unit_box([(7.0, 1.0), (7.0, 2.0)], own) == [(0.0, 0.0), (0.0, 1.0)]


def test_the_unit_box_ends_at_the_reference_where_one_is_given():
    assert unit_box([(1.0, 30.0), (3.0, 10.0)], (5.0, 20.0)) == [(0.0, 2.0), (0.5, 0.0)]
    assert unit_box([(7.0, 1.0), (8.0, 2.0)], (6.0, None)) == [(1.0, 0.0), (1.0, 1.0)]  # all of it lies beyond
