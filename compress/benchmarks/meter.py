"""Wall time and peak memory of the steps of one process, each by itself."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): sets the high-water mark of resident memory back to what is resident now


@dataclass(frozen=True)
class Cost:
    """What a step took; `peak_rss_gb` counts all that was resident meanwhile, also what earlier steps had left."""

    wall_s: float
    peak_rss_gb: float

    def as_json(self) -> dict[str, float]:
        return {"wall_s": round(self.wall_s, 2), "peak_rss_gb": round(self.peak_rss_gb, 3)}


@dataclass
class Steps:
    """Collects the cost of every `with steps.step(name)` block, in order."""

    costs: dict[str, Cost] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measures the block. Where the system cannot reset the peak (not Linux) it is that of the process so far."""
        _reset_peak()
        began = time.perf_counter()
        yield
        self.costs[name] = Cost(time.perf_counter() - began, peak_rss_gb())

    def add(self, name: str, wall_s: float, peak_rss_gb: float) -> None:
        """Enters a step that was measured elsewhere, in a process of its own."""
        self.costs[name] = Cost(wall_s, peak_rss_gb)

    def total(self, names: tuple[str, ...] | None = None) -> Cost:
        """Time of these steps together (default: all), and the highest of their peaks."""
        chosen = [cost for name, cost in self.costs.items() if names is None or name in names]
        return Cost(sum(cost.wall_s for cost in chosen), max((cost.peak_rss_gb for cost in chosen), default=0.0))


def peak_rss_gb() -> float:
    """The most memory that was resident at once since the last reset, in 10^9 bytes."""
    if _STATUS.exists():
        (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _reset_peak() -> None:
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:  # not Linux, or not allowed
        return
