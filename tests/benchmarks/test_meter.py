"""Steps are measured each by itself."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from compress.benchmarks.meter import Steps


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak")
def test_a_later_step_does_not_inherit_an_earlier_peak() -> None:
    steps = Steps()
    with steps.step("large"):
        assert np.ones(40_000_000).sum() > 0  # 320 MB, freed at once
    with steps.step("small"):
        time.sleep(0.05)
    large, small = steps.costs["large"], steps.costs["small"]
    assert large.peak_rss_gb - small.peak_rss_gb > 0.25
    assert small.wall_s >= 0.05


def test_totals_add_time_and_take_the_highest_peak() -> None:
    steps = Steps()
    steps.add("a", 1.0, 3.0)
    steps.add("b", 2.0, 5.0)
    steps.add("c", 4.0, 1.0)
    assert (steps.total().wall_s, steps.total().peak_rss_gb) == (7.0, 5.0)
    assert steps.total(("a", "c")).as_json() == {"wall_s": 5.0, "peak_rss_gb": 3.0}
