"""A checkpoint written tensor by tensor: the header says beforehand where everything will lie."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from students.init import Shapes

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_CODES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}


def write_safetensors(
    path: Path,
    shapes: Shapes,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype,
    on_tensor: Callable[[str], None] = lambda name: None,
) -> None:
    """Writes the tensors named in `shapes`, in that order, in one number format; the file appears whole or not at all.

    Each tensor is asked for once, cast, written and dropped; `on_tensor` hears of it. ValueError for a tensor of
    another shape than it was to have.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(_header(shapes, dtype))
            for name, shape in shapes.items():
                tensor = tensors[name]
                if tensor.shape != shape:
                    raise ValueError(f"{name} is {tuple(tensor.shape)}, not {tuple(shape)}")
                flat = tensor.detach().to("cpu", dtype).contiguous().flatten()
                file.write(flat.view(torch.uint8).numpy().data)
                on_tensor(name)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _header(shapes: Shapes, dtype: torch.dtype) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}  # diffusers refuses files that do not say so
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + prod(shape) * dtype.itemsize
        entries[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data begin on a multiple of 8 bytes
    return struct.pack("<Q", len(text)) + text
