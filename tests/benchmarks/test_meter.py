"""Steps are measured each by itself."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from compress.benchmarks.meter import Steps

MEASURED = """
import json, time
from compress.benchmarks.meter import Steps
steps = Steps()
with steps.step("large"):
    block = bytearray(b"x") * 320_000_000  # touched, freed at once
    del block
with steps.step("small"):
    time.sleep(0.05)
print(json.dumps({name: cost.as_json() for name, cost in steps.costs.items()}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak")
def test_a_later_step_does_not_inherit_an_earlier_peak() -> None:
    """In a process of its own: one that has freed a lot before may have room for the block without growing."""
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    large, small = json.loads(done.stdout).values()
    assert large["peak_rss_gb"] - small["peak_rss_gb"] > 0.25
    assert small["wall_s"] >= 0.05


def test_totals_add_time_and_take_the_highest_peak() -> None:
    steps = Steps()
    steps.add("a", 1.0, 3.0)
    steps.add("b", 2.0, 5.0)
    steps.add("c", 4.0, 1.0)
    assert (steps.total().wall_s, steps.total().peak_rss_gb) == (7.0, 5.0)
    assert steps.total(("a", "c")).as_json() == {"wall_s": 5.0, "peak_rss_gb": 3.0}
