"""From a budget to a spec: the widest legal student, of the goal's operators, that stays within the limits.

Widths move on the lattice (multiples of 64), never above the teacher's, in steps that keep the stages' proportions as
well as the lattice allows; what is left of the budget then goes to single stages, the lowest resolution first. Costs
come from the meta device, so planning needs no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from compress.cost import cost, padded_bytes, parameters
from compress.errors import UserError
from students.spec import LATTICE, StudentSpec, with_heads


@dataclass(frozen=True)
class Budget:
    """Upper limits; None is no limit. macs_g is one forward on a pair of latent_height x 2 * latent_width."""

    parameters_m: float | None = None
    macs_g: float | None = None
    size_mb: float | None = None
    latent_height: int = 8
    latent_width: int = 8
    tokens: int = 32

    def broken_by(self, spec: StudentSpec) -> str | None:
        """The first limit that the spec breaks, in words; None if it keeps them all. Only what is limited is counted:
        parameters cost a hundredth of what tracing a forward does."""
        counts: dict[str, Callable[[], float]] = {
            "parameters_m": lambda: parameters(spec) / 1e6,
            "macs_g": lambda: cost(spec, self.latent_height, 2 * self.latent_width, self.tokens).macs_g,
            "size_mb": lambda: padded_bytes(spec) / 1e6,
        }
        for name, count in counts.items():
            limit = getattr(self, name)
            if limit is not None and (value := count()) > limit:
                return f"{name} {limit:g} (this student has {value:.4g})"
        return None


def plan_widths(goal: StudentSpec, teacher: StudentSpec, budget: Budget) -> StudentSpec:
    """The goal with the widest stages that the budget allows.

    Raises UserError where even the narrowest student breaks a limit, naming the limit and what it would take.
    """
    legal = list(_path(goal, teacher))
    if broken := budget.broken_by(legal[0]):
        raise UserError.of(
            f"no legal student meets {broken}",
            "stage 'prune', budget",
            f"Raise the limit, or drop layers or transformer blocks: {LATTICE} channels a stage is the least",
        )
    best = legal[0]
    for spec in legal[1:]:
        if budget.broken_by(spec):
            break
        best = spec
    for stage in reversed(range(goal.stages)):
        while (wider := _widen(best, teacher, stage)) is not None and budget.broken_by(wider) is None:
            best = wider
    return best


def _path(goal: StudentSpec, teacher: StudentSpec) -> Iterator[StudentSpec]:
    """Legal specs from narrowest to widest: all of the teacher's widths times one share, rounded down."""
    steps = max(teacher.widths) // LATTICE
    seen = set()
    for step in range(1, steps + 1):
        widths = tuple(max(LATTICE, width * step // steps // LATTICE * LATTICE) for width in teacher.widths)
        if widths not in seen:
            seen.add(widths)
            yield with_heads(replace(goal, widths=widths))


def _widen(spec: StudentSpec, teacher: StudentSpec, stage: int) -> StudentSpec | None:
    widths = list(spec.widths)
    widths[stage] += LATTICE
    if widths[stage] > teacher.widths[stage]:
        return None
    return with_heads(replace(spec, widths=tuple(widths)))
