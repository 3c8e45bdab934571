"""How much memory the HTP compiler will take, from what a QDQ file holds: said before it starts.

The compiler's peak is taken to be a constant plus so many bytes for every byte of weights and of activations. The
coefficients fit eleven networks, from 0.28 GB (8 M parameters at 128 px) to DreamLite's own at 512 and 1024 px (3.35
and 9.02 GB), within 10 % of each; without the largest they would say 7.3 GB for it. All were compiled for 8 Gen 3;
DreamLite at 1024 px took 9.00 GB for 8 Gen 2 and 9.43 for 8 Elite.
tests/benchmarks/compile_memory.py measures and fits them again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import UserError

WEIGHT_BYTES, ACTIVATION_BYTES = "weight_bytes", "activation_bytes"  # properties of the files that we write
BASE_GB, PER_WEIGHT, PER_ACTIVATION = 0.22, 5.43, 0.311  # GB, and bytes a byte


@dataclass(frozen=True)
class Load:
    """What a network makes the compiler hold: bytes of its integers, and of every tensor between its operators."""

    weight_bytes: int
    activation_bytes: int

    @classmethod
    def of(cls, integers: Iterable[Any], shapes: Iterable[Sequence[int]]) -> Load:
        """Of a file's initializers, as they lie in it, and its operators' outputs, 16 bits a number."""
        weights = sum(len(tensor.raw_data) for tensor in integers)
        return cls(weights, sum(2 * math.prod(shape) for shape in shapes))

    def as_properties(self) -> dict[str, str]:
        return {WEIGHT_BYTES: str(self.weight_bytes), ACTIVATION_BYTES: str(self.activation_bytes)}

    def peak_gb(self) -> float:
        """The compiler's peak in 10^9 bytes, as predicted."""
        return BASE_GB + (PER_WEIGHT * self.weight_bytes + PER_ACTIVATION * self.activation_bytes) / 1e9


def load_of(model: Path) -> Load | None:
    """What the file's properties say; None for a file that another program wrote."""
    import onnx

    loaded: Any = onnx.load(model, load_external_data=False)
    properties = {entry.key: entry.value for entry in loaded.metadata_props}
    if not {WEIGHT_BYTES, ACTIVATION_BYTES} <= properties.keys():
        return None
    return Load(int(properties[WEIGHT_BYTES]), int(properties[ACTIVATION_BYTES]))


def check_memory(model: Path) -> float | None:
    """The predicted peak in GB, None where nothing can be said; UserError where this machine has less in all."""
    import psutil

    load = load_of(model)
    if load is None:
        return None
    found_gb, has_gb = load.peak_gb(), psutil.virtual_memory().total / 1e9
    if found_gb > has_gb:
        raise UserError.of(
            f"compiling will take about {found_gb:.1f} GB of memory, and this machine has {has_gb:.1f} GB",
            str(model),
            "Compile on a larger machine, or quantize for a smaller picture or a narrower network.",
        )
    return found_gb
