"""Results of slow, deterministic work, kept in a folder where whoever needs them again finds them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from threading import get_ident

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from compress.locks import locked

LOCKS = ".locks"
_VALUE = "value"


class Kept:
    """Tensors by name, a file each, written whole or not at all. The folder appears with the first of them.

    A name is letters, digits, "_" and "-". Where processes `share` a folder, none makes what another is at: it waits.
    """

    def __init__(self, folder: Path, share: bool = False) -> None:
        self.folder, self.share = folder, share

    def has(self, name: str) -> bool:
        """Whether something is kept under this name."""
        return self._path(name).is_file()

    def tensor(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """What was kept under this name, or what `make` gives now."""
        return self.tensors(name, lambda: {_VALUE: make()})[_VALUE]

    def tensors(self, name: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The same of several tensors in one file."""
        path = self._path(name)
        if path.is_file():
            return load_file(path)
        with locked(self.folder / LOCKS / name) if self.share else nullcontext():
            return load_file(path) if path.is_file() else self._make(path, make)

    def _make(self, path: Path, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        made = {key: value.contiguous() for key, value in make().items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{get_ident()}")
        save_file(made, temporary)
        os.replace(temporary, path)
        return made

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes, in the mapping's order."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        values = tensor.detach().cpu().contiguous()
        found.update(f"{name} {values.dtype} {tuple(values.shape)} ".encode())
        found.update(values.flatten().view(torch.uint8).numpy().tobytes() if values.numel() else b"")
    return found.hexdigest()
