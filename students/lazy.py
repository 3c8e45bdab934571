"""Tensors by name, computed when asked for: how a network larger than memory passes from one operator to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class _Block:
    """Tensors that one call of `fill` sets; `waiting` are those that nobody has taken since."""

    names: tuple[str, ...]
    fill: Callable[[], None]
    waiting: set[str] = field(default_factory=set)


class LazyState(Mapping[str, Tensor]):
    """Name -> tensor; some are at hand (`state[name] = tensor`), others are promised (`defer`).

    A promised tensor is let go when all of its block have been handed out, so a chain of such states never holds a
    whole network. Asked for again, it is computed again: what `fill` sets must not depend on when it is called.
    """

    def __init__(self) -> None:
        self._ready: dict[str, Tensor] = {}
        self._blocks: dict[str, _Block | None] = {}  # of every name, in order; None for one that stays at hand

    def __setitem__(self, name: str, tensor: Tensor) -> None:
        self._blocks.setdefault(name, None)
        self._ready[name] = tensor

    def defer(self, names: Iterable[str], fill: Callable[[], None]) -> None:
        """Promises `names`: `fill` has to set all of them, and is called when one is first asked for."""
        block = _Block(tuple(names), fill)
        self._blocks.update(dict.fromkeys(block.names, block))

    def __getitem__(self, name: str) -> Tensor:
        block = self._blocks[name]
        if block is None:
            return self._ready[name]
        if name not in self._ready:
            block.fill()
            block.waiting = set(block.names)
        tensor = self._ready[name]
        block.waiting.discard(name)
        if not block.waiting:
            for done in block.names:
                del self._ready[done]
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._blocks  # Mapping's own would compute the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)
