"""Wall time and peak memory of the steps of one process, each by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from compress.memory import peak_rss_gb, reset_peak_rss


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
        reset_peak_rss()
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
