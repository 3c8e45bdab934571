"""Teacher weights + spec -> student weights: every tensor is taken from a stated source, and the source is kept.

`Transplant` fills the state of one new network from that of another; `Ledger` follows tensors through a chain of such
steps, so that the last student's table names the first teacher's tensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from students.lazy import LazyState

Shapes = Mapping[str, torch.Size]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Step:
    """How one operator made a tensor; relative_error is |made - wanted|^2 / |wanted|^2 where that is defined."""

    operator: str
    method: str
    relative_error: float | None = None


@dataclass(frozen=True)
class Origin:
    """The teacher's tensors behind one student tensor (none: it is new) and the steps that led from them to it."""

    tensors: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()


@dataclass
class Transplant:
    """The state of a network with shapes `wanted`, built up from the state `old` of its predecessor, of shapes `had`.

    Tensors are put at once, or later (`defer`), when somebody asks `made` for them. Nothing of `old` need be read
    before, and its origin is known only then.
    """

    operator: str
    old: Mapping[str, Tensor]
    wanted: Shapes
    had: Shapes = field(default_factory=dict)
    made: LazyState = field(default_factory=LazyState)
    origins: dict[str, tuple[tuple[str, ...], Step | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.had = self.had or {name: tensor.shape for name, tensor in self.old.items()}

    def put(
        self, name: str, tensor: Tensor, sources: Iterable[str], method: str, relative_error: float | None = None
    ) -> None:
        """Sets tensor `name`, made from the old tensors `sources` in the way that `method` says in a few words.

        Raises KeyError for a tensor the new network lacks, ValueError for one of another shape.
        """
        if name not in self.wanted:
            raise KeyError(f"{self.operator}: the new network has no tensor {name}")
        if tensor.shape != self.wanted[name]:
            raise ValueError(f"{self.operator}: {name} is {tuple(tensor.shape)}, not {tuple(self.wanted[name])}")
        self.made[name] = tensor.detach().contiguous()
        self.origins[name] = (tuple(sources), Step(self.operator, method, relative_error))

    def defer(self, names: Iterable[str], fill: Callable[[], None]) -> None:
        """Leaves tensors `names` to `fill`, which has to `put` each; it may be called again, and must put the same."""
        self.made.defer(names, fill)

    def rename(self, name: str, source: str) -> None:
        """Takes an old tensor as it is under a new name, when it is asked for."""

        def fill() -> None:
            self.put(name, self.old[source], [source], "moved")
            self.origins[name] = origin

        origin = ((source,), None if name == source else Step(self.operator, "moved"))
        self.origins[name] = origin
        self.defer([name], fill)

    def fresh(self, name: str, tensor: Tensor, method: str) -> None:
        """Sets a tensor that has no counterpart in the old network."""
        self.put(name, tensor, [], method)

    def keep_rest(self) -> None:
        """Takes over every tensor not yet set that the old network has in the same name and shape."""
        for name, shape in self.wanted.items():
            if name not in self.made and self.had.get(name) == shape:
                self.rename(name, name)

    def lazy_state(self) -> LazyState:
        """The state, to be computed as it is read; ValueError names the tensors that were left without a source."""
        missing = sorted(set(self.wanted) - set(self.made))
        if missing:
            raise ValueError(f"{self.operator}: no source for {len(missing)} tensors, first {missing[:4]}")
        return self.made

    def state(self) -> State:
        """The finished state, in tensors of its own; ValueError as for `lazy_state`."""
        return {name: tensor.clone() for name, tensor in self.lazy_state().items()}


class Ledger:
    """Where each tensor of the newest network in a chain comes from, in the names of the first."""

    def __init__(self, teacher: Iterable[str]) -> None:
        self.origins = {name: Origin((name,)) for name in teacher}

    def record(self, transplant: Transplant) -> None:
        """Appends one step: afterwards the table is about the network that `transplant` made.

        A tensor that was left for later and never asked for went into nothing, and has no row.
        """
        self.origins = {name: self._trace(*made) for name, made in transplant.origins.items()}

    def note(self, name: str, step: Step) -> None:
        """Adds a step that changed a tensor in place, after the transplant that brought it."""
        origin = self.origins[name]
        self.origins[name] = Origin(origin.tensors, (*origin.steps, step))

    def _trace(self, sources: tuple[str, ...], step: Step | None) -> Origin:
        before = [self.origins[source] for source in sources if source in self.origins]
        tensors = tuple(dict.fromkeys(tensor for origin in before for tensor in origin.tensors))
        steps = tuple(dict.fromkeys(earlier for origin in before for earlier in origin.steps))
        return Origin(tensors, steps if step is None else (*steps, step))

    def table(self) -> dict[str, dict[str, object]]:
        """Plain JSON: tensor -> {tensors, steps: [{operator, method, relative_error}]}."""
        return {
            name: {"tensors": list(origin.tensors), "steps": [asdict(step) for step in origin.steps]}
            for name, origin in sorted(self.origins.items())
        }

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.table(), indent=1) + "\n")


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Name and shape of every tensor in the state of a model, which may be on the meta device."""
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def squared_norm(tensor: Tensor) -> float:
    """Sum of squares, in double precision over pieces. Each is one call: between calls another thread may take over."""
    return sum(float(torch.dot(piece, piece)) for piece in tensor.detach().flatten().float().split(1 << 22))


def relative_error(made: Tensor, wanted: Tensor) -> float:
    """|made - wanted|^2 / |wanted|^2; 0 where both are zero."""
    norm = wanted.double().square().sum()
    gap = (made.double() - wanted.double()).square().sum()
    return float(gap / norm) if norm > 0 else float(gap > 0)
