"""Peaks belong to one process, and to one stretch of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHILD = "from compress.memory import peak_rss_gb; print(peak_rss_gb())"
PARENT = f"""
import subprocess, sys
from compress.memory import peak_rss_gb
block = bytearray(b"x") * 400_000_000  # touched
print(peak_rss_gb(), flush=True)
subprocess.run([sys.executable, "-c", {CHILD!r}], check=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system's account is all there is")
def test_a_child_does_not_inherit_its_parents_peak() -> None:
    """getrusage's would: a new program keeps the peak of the process that it was started from."""
    done = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, check=True)
    parent_gb, child_gb = map(float, done.stdout.split())
    assert parent_gb > 0.4 > 0.2 > child_gb
