"""From teacher to student in named steps, each of which leaves a network that runs, reloads and is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor, nn

from compress.cost import cost
from compress.pruning.calibration import Noised, predictions, velocity_mse
from compress.pruning.compensate import RIDGES, compensate
from compress.pruning.features import TeacherFeatures
from compress.pruning.surgery import OPERATORS, Bench, Draft
from students.init import Ledger, Step
from students.spec import StudentSpec

PAIR = "pair"  # the last step: no weight changes, but the student is given (target | condition), as it will be
PLAIN = "plain"  # the last step of a student that stays in the teacher's class and generates only


@dataclass(frozen=True)
class Row:
    """One network on the way. velocity_mse is against the teacher on held-out batches, as the operator left it;
    velocity_mse_fitted after the least-squares compensation, where there was one. macs_g is one forward on the input
    that the network of this row takes: the latent alone, for `pair` the latent and its condition."""

    step: str
    title: str
    parameters_m: float
    macs_g: float
    size_mb_w8_padded: float
    velocity_mse: float
    velocity_mse_fitted: float | None = None
    wall_s: float = 0.0

    @property
    def error(self) -> float:
        """The velocity error of the network that the next step starts from."""
        return self.velocity_mse if self.velocity_mse_fitted is None else self.velocity_mse_fitted

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """Which steps lead to the goal, and after which of them the linear outputs are refitted."""

    goal: StudentSpec
    steps: tuple[str, ...] = tuple(OPERATORS)
    compensated: tuple[str, ...] = ("depth", "separable", PAIR)
    ridges: tuple[float, ...] = RIDGES


@dataclass
class Evolution:
    """The student that came out, the rows of the evolution plot, and where every tensor comes from."""

    draft: Draft
    rows: list[Row]
    ledger: Ledger
    report: dict[str, Any]


@dataclass
class Samples:
    """Noised batches for three purposes: importance and activations, least squares, and measuring (held out)."""

    calibration: list[Noised]
    fitting: list[Noised]
    held_out: list[Noised]


def rehouse(teacher: Any, pooled_dim: int | None = None) -> Draft:
    """The teacher in the student's class, which computes the same; ValueError if it is not of the family."""
    spec = StudentSpec.from_config(teacher.config, pooled_dim)
    unet = spec.build().requires_grad_(False)
    unet.load_state_dict(teacher.state_dict(), strict=True)
    return Draft(spec, unet.eval().to(next(teacher.parameters()).device))


def target(spec: StudentSpec, goal: StudentSpec, steps: Sequence[str]) -> StudentSpec:
    """The spec that `steps` lead to; equals the goal where no step is left out."""
    for step in steps:
        spec = OPERATORS[step].target(spec, goal)
    return replace(spec, plain=spec.plain or goal.plain)


def evolve(
    teacher: nn.Module,
    plan: Plan,
    samples: Samples,
    bench: Bench,
    on_row: Callable[[Row, Draft], None] = lambda row, draft: None,
    reference: Sequence[Tensor] | None = None,
    features: TeacherFeatures | None = None,
) -> Evolution:
    """Carries a frozen teacher through the plan's steps; `on_row` is called with every network as it is finished.

    Errors are against `reference`, velocities on the held-out batches; without one against the teacher's own.
    `features` are the teacher's on the fitting batches, where they have been recorded before.
    """
    pooled_bd = samples.calibration[0].condition.pooled_bd
    draft = rehouse(teacher, None if pooled_bd is None else pooled_bd.shape[1])
    if reference is None:
        reference = predictions(teacher, samples.held_out)
    features = features or TeacherFeatures(teacher, samples.fitting)
    walk = _Walk(plan, samples, bench, features, reference, Ledger(draft.unet.state_dict()), on_row)
    walk.row("teacher", "teacher", draft, time.perf_counter())
    for name in plan.steps:
        draft = walk.step(name, draft)
    if plan.goal.plain:
        draft = draft.as_plain()
        walk.row(PLAIN, "as UNet2DConditionModel", draft, time.perf_counter())
    else:
        walk.row(PAIR, "target and condition side by side", draft, time.perf_counter(), pair=True)
    return Evolution(draft, walk.rows, walk.ledger, bench.report)


class _Walk:
    def __init__(
        self,
        plan: Plan,
        samples: Samples,
        bench: Bench,
        features: TeacherFeatures,
        reference: Sequence[Tensor],
        ledger: Ledger,
        on_row: Callable[[Row, Draft], None],
    ) -> None:
        self.plan, self.samples, self.bench, self.ledger, self.on_row = plan, samples, bench, ledger, on_row
        self.features, self.reference = features, reference
        self.rows: list[Row] = []

    def step(self, name: str, draft: Draft) -> Draft:
        began = time.perf_counter()
        operator = OPERATORS[name]
        draft, transplant = operator.apply(draft, self.plan.goal, self.bench)
        self.ledger.record(transplant)
        self.row(name, operator.title, draft, began)
        return draft

    def row(self, name: str, title: str, draft: Draft, began: float, pair: bool = False) -> None:
        fitted, mse = None, velocity_mse(draft.unet, self.samples.held_out, self.reference, pair)
        if name in self.plan.compensated and mse > 0:  # else it still is the teacher
            self._compensate(draft, pair)
            fitted = velocity_mse(draft.unet, self.samples.held_out, self.reference, pair)
        batch = self.samples.held_out[0]
        height, width = batch.x_bchw.shape[2:]
        costs = cost(draft.spec, height, width * (1 + (pair or batch.paired)), batch.condition.tokens_btd.shape[1])
        wall_s = time.perf_counter() - began
        row = Row(name, title, **costs.metrics(), velocity_mse=mse, velocity_mse_fitted=fitted, wall_s=wall_s)
        self.rows.append(row)
        self.on_row(row, draft)

    def _compensate(self, draft: Draft, pair: bool) -> None:
        errors = compensate(draft, self.features, self.bench.lineage, pair, self.plan.ridges)
        for tensor, (_, after) in errors.items():
            self.ledger.note(tensor, Step("compensate", "least squares on the teacher's features", after))
