"""What a student may cost: any mix of upper limits, and how what has to go is shared out."""

from __future__ import annotations

from dataclasses import dataclass

from compress.errors import Problem
from compress.latency import CHIPS

UNIFORM, GLOBAL, ISOMORPHIC = "uniform", "global", "isomorphic"
ALLOCATIONS = (UNIFORM, GLOBAL, ISOMORPHIC)
LIMITS = ("parameters_m", "macs_g", "size_mb_w8_padded", "latency_ms")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Upper limits; None is no limit. macs_g and latency_ms are of one forward on a pair (target | condition).

    size_mb_w8_padded is the W8 weight file with channels padded to 32, as the HTP stores it; latency_ms is estimated
    for `chip` (compress/latency). `allocation` says how stages share the cut: "uniform" takes the same ratio of each;
    "global" and "isomorphic" go by the criterion's scores, over everything together or over each kind of unit apart
    (Fang et al., arXiv 2407.04616).
    """

    parameters_m: float | None = None
    macs_g: float | None = None
    size_mb_w8_padded: float | None = None
    latency_ms: float | None = None
    chip: str = "8gen3"
    allocation: str = UNIFORM

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {name: getattr(self, name) for name in LIMITS if getattr(self, name) is not None}

    def problems(self, where: str) -> list[Problem]:
        """Every mistake, each with its remedy."""
        found = [
            Problem(f"{name} is {limit!r}", where, "Give a positive limit, or leave it out.")
            for name, limit in self.limits.items()
            if not limit > 0
        ]
        if not self.limits:
            found.append(Problem("the budget has no limit", where, f"Give one or more of {', '.join(LIMITS)}."))
        for name, known in (("chip", tuple(CHIPS)), ("allocation", ALLOCATIONS)):
            if (value := getattr(self, name)) not in known:
                found.append(Problem(f"{name} is {value!r}", where, f"Use one of {', '.join(known)}."))
        return found
