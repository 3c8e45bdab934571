"""Results of slow, deterministic work, kept in a folder where an interrupted stage finds them again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import get_ident

from safetensors.torch import load_file, save_file
from torch import Tensor

_VALUE = "value"


class Kept:
    """Tensors by name, a file each, written whole or not at all. The folder appears with the first of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, name: str) -> bool:
        """Whether something is kept under this name."""
        return self._path(name).is_file()

    def tensor(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """What was kept under this name, or what `make` gives now. A name is letters, digits, "_" and "-"."""
        path = self._path(name)
        if path.is_file():
            return load_file(path)[_VALUE]
        made = make().contiguous()
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{get_ident()}")
        save_file({_VALUE: made}, temporary)
        os.replace(temporary, path)
        return made

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"
