"""Weights as they lie on disk, in diffusers' layout: opened and checked by their headers, read tensor by tensor.

A safetensors file is 8 bytes of header length, a JSON header {name: {dtype, shape, data_offsets}}, and the data.
Tensors are read into memory of their own rather than mapped: mapped pages count as resident, and add up to the file.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.errors import Problem, UserError

if TYPE_CHECKING:
    import torch

STEM = "diffusion_pytorch_model"
BYTES = {"BF16": 2, "F16": 2, "F32": 4}
_HEADER_LIMIT = 100_000_000  # of the format; more means that this is something else
_AGAIN = "Download or copy the file again."


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: `start` counts bytes from the beginning of the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def count(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.count * BYTES[self.dtype]


@dataclass(frozen=True)
class Checkpoint:
    """A network's configuration and the place of each of its tensors; nothing of them has been read."""

    folder: Path
    config: dict[str, Any]
    entries: dict[str, Entry]

    @property
    def files(self) -> list[Path]:
        return sorted({entry.file for entry in self.entries.values()})

    def tensors(self) -> FileTensors:
        """Name -> tensor in fp32, read on access."""
        return FileTensors(self.entries)


def open_checkpoint(folder: Path) -> Checkpoint:
    """The network in `folder` (config.json and safetensors, whole or sharded); nothing but headers is read.

    Raises one UserError with everything that is wrong: no folder, no weights, shards that are missing or truncated,
    tensors that an index promises and no shard has, and number formats other than fp16, bf16 and fp32.
    """
    problems: list[Problem] = []
    if not folder.is_dir():
        remedy = "Name a diffusers folder that holds unet/, for example one that `hf download` has made."
        raise UserError.of("there is no unet/", str(folder.parent), remedy)
    config = _json(folder / "config.json", problems)
    promised, files = _files(folder, problems)
    entries: dict[str, Entry] = {}
    for file in files:
        entries |= _header(file, problems)
    if not problems and (absent := sorted(set(promised) - set(entries))):
        what = f"the index promises {len(absent)} tensors that no shard has, first {absent[0]}"
        problems.append(Problem(what, str(folder), _AGAIN))
    if problems:
        raise UserError(*problems)
    return Checkpoint(folder, config, entries)


def _files(folder: Path, problems: list[Problem]) -> tuple[list[str], list[Path]]:
    """(tensors that an index promises, weight files). A folder may hold variants (.fp16); the plain one goes first."""
    indices = sorted(folder.glob(f"{STEM}.safetensors.index*.json"), key=lambda path: len(path.name))
    single = [path for path in (folder / f"{STEM}.safetensors",) if path.is_file()]
    variants = sorted(path for path in folder.glob(f"{STEM}.*.safetensors") if path.is_file())
    if not single and indices:
        weight_map: dict[str, str] = _json(indices[0], problems).get("weight_map", {})
        files = [folder / name for name in sorted(set(weight_map.values()))]
        for file in files:
            if not file.is_file():
                problems.append(Problem(f"{indices[0].name} names this shard, and it is missing", str(file), _AGAIN))
        return list(weight_map), [file for file in files if file.is_file()]
    if not single and not variants:
        what = f"there is no {STEM}.safetensors and no index of shards"
        problems.append(Problem(what, str(folder), "Save the network as safetensors; pickled weights are not read."))
    return [], (single or variants)[:1]


def _header(file: Path, problems: list[Problem]) -> dict[str, Entry]:
    """Every tensor of a file, after checking that the file is as long as its header says."""

    def refuse(what: str, remedy: str = _AGAIN) -> dict[str, Entry]:
        problems.append(Problem(what, str(file), remedy))
        return {}

    size = file.stat().st_size
    with open(file, "rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        if length > min(size - 8, _HEADER_LIMIT):
            return refuse(f"the file is truncated: {size} bytes do not hold its header")
        try:
            raw = json.loads(stream.read(length))
            raw.pop("__metadata__", None)
            ends = [entry["data_offsets"][1] for entry in raw.values()]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return refuse("this is not a safetensors file")
    odd = sorted({entry["dtype"] for entry in raw.values()} - set(BYTES))
    if odd:
        return refuse(f"weights are stored as {', '.join(odd)}", f"Convert them to one of {', '.join(BYTES)}.")
    whole = 8 + length + max(ends, default=0)
    if size != whole:
        return refuse(f"the file is {'truncated' if size < whole else 'too long'}: {size} of {whole} bytes")
    entries = {
        name: Entry(file, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
        for name, entry in raw.items()
    }
    if any(entries[name].bytes != end - start for name, (start, end) in _spans(raw)):
        return refuse("the header contradicts itself: shapes and offsets differ")
    return entries


def _spans(raw: dict[str, Any]) -> Iterator[tuple[str, tuple[int, int]]]:
    return ((name, tuple(entry["data_offsets"])) for name, entry in raw.items())


def _json(path: Path, problems: list[Problem]) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        problems.append(
            Problem("the file is missing", str(path), "Name a folder that diffusers' save_pretrained wrote.")
        )
        return {}
    except ValueError as error:
        problems.append(Problem(f"the file is not JSON ({error})", str(path), _AGAIN))
        return {}
    return value if isinstance(value, dict) else {}


class FileTensors(Mapping[str, "torch.Tensor"]):
    """Name -> tensor in fp32, read from its file on every access and kept by nobody."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = entries
        self._scratch = bytearray()  # what was read is cast at once, so one place will do for all

    def __getitem__(self, name: str) -> torch.Tensor:
        import numpy as np
        import torch

        entry = self._entries[name]
        dtype = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[entry.dtype]
        if len(self._scratch) < entry.bytes:
            self._scratch = bytearray(entry.bytes)
        memory = memoryview(self._scratch)[: entry.bytes]
        with open(entry.file, "rb", buffering=0) as stream:
            stream.seek(entry.start)
            read = 0
            while read < len(memory):
                got = stream.readinto(memory[read:])
                if not got:
                    raise UserError.of(f"{name} ends early", str(entry.file), _AGAIN)
                read += got
        # NumPy asks the system for large pages, PyTorch does not: first touching small ones takes longer than reading.
        tensor = torch.from_numpy(np.empty(entry.shape, np.float32))
        if read:
            tensor.flatten().copy_(torch.frombuffer(self._scratch, dtype=dtype, count=entry.count))
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
