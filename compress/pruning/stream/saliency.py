"""The criteria that look at no data, on tensors that come one after the other: what they keep of each is two sums."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from compress.pruning.importance import Place, Saliency
from students.init import Shapes

CRITERIA = ("magnitude", "random")
_CHUNK = 1 << 17  # entries squared at a time: they stay in the processor's cache, which makes it ten times as fast

Sums = tuple[Tensor, Tensor]  # a matrix's scores summed for each output and for each input


def score_streamed(
    criterion: str, tensors: Mapping[str, Tensor], shapes: Shapes, generator: torch.Generator
) -> Saliency:
    """The scores of a network whose tensors are read when needed; ValueError for a criterion that needs data."""
    if criterion == "magnitude":
        return LazySaliency(shapes, lambda name: squared_sums(tensors[name]))
    if criterion == "random":
        seed = generator.initial_seed()
        return LazySaliency(shapes, lambda name: _drawn(shapes[name], seed + zlib.crc32(name.encode())))
    raise ValueError(f"{criterion} looks at data; a network that is streamed is scored by {' or '.join(CRITERIA)}")


class LazySaliency(Saliency):
    """A saliency whose sums are computed when they are first asked for. Norms and biases score nothing."""

    def __init__(self, shapes: Shapes, score: Callable[[str], Sums]) -> None:
        super().__init__()
        self._sums = _OnDemand([name for name, shape in shapes.items() if len(shape) > 1], score)
        self.along = self._sums  # type: ignore[assignment]  # to be read as the dictionary that it stands for

    def layer(self, prefix: str) -> float:
        return sum(float(self._sums[name, 0].sum()) for name in self._sums.names if name.startswith(f"{prefix}."))


class _OnDemand(Mapping[Place, Tensor]):
    def __init__(self, names: list[str], score: Callable[[str], Sums]) -> None:
        self.names = dict.fromkeys(names)
        self._score = score
        self._known: dict[str, Sums] = {}

    def __getitem__(self, place: Place) -> Tensor:
        name, axis = place
        if name not in self.names or axis > 1:
            raise KeyError(place)
        if name not in self._known:
            self._known[name] = self._score(name)
        return self._known[name][axis]

    def __contains__(self, place: object) -> bool:
        return isinstance(place, tuple) and place[0] in self.names

    def __iter__(self) -> Iterator[Place]:
        return ((name, axis) for name in self.names for axis in (0, 1))

    def __len__(self) -> int:
        return 2 * len(self.names)


def squared_sums(weight: Tensor) -> Sums:
    """Squared weights (Han et al., arXiv 1506.02626), summed in double precision over pieces that fit the cache."""
    flat = weight.detach().flatten(1)
    rows, columns = torch.empty(len(flat), dtype=torch.float64), torch.zeros(flat.shape[1], dtype=torch.float64)
    step = max(1, _CHUNK // flat.shape[1])
    for start in range(0, len(flat), step):
        square = flat[start : start + step].to("cpu", torch.float32, copy=True).square_()
        rows[start : start + step] = square.sum(1)
        columns += square.sum(0)
    return rows, columns.reshape(weight.shape[1], -1).sum(1)


def _drawn(shape: torch.Size, seed: int) -> Sums:
    """Scores that know nothing. They depend on the seed and the tensor's name, not on the order of asking."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (torch.rand(extent, generator=generator, dtype=torch.float64) for extent in shape[:2])
    return rows, columns
