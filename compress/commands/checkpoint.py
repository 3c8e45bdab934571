"""Opens a checkpoint for `eval` and `generate`, with whichever runtime is to compute its U-Net."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compress.artifact import CARD, verify
from compress.bundle.opening import is_bundle, open_bundle
from compress.errors import UserError
from compress.pipeline import choose_device
from students.system import DiffusionSystem
from teachers.base import VelocityModel


def open_checkpoint(folder: Path, runtime: str, device: str) -> tuple[DiffusionSystem, VelocityModel]:
    """The system in `folder` and the denoiser to sample with: its own U-Net, or a compiled stand-in.

    The folder may be a bundle too. Raises UserError if it holds no checkpoint, one of its files is damaged, or it has
    nothing for `runtime`.
    """
    remedy = "Name an artefact that holds a whole checkpoint, for example runs/scenes/40-joint."
    if not folder.is_dir():
        raise UserError.of("there is no such folder", str(folder), remedy)
    if is_bundle(folder):
        return open_bundle(folder, runtime)
    if (folder / CARD).exists():
        verify(folder)
    try:
        system = DiffusionSystem.load(folder, choose_device(device))
    except (OSError, ValueError) as error:  # diffusers and transformers raise either for a part that is not whole
        raise UserError.of(f"it cannot be loaded ({error})", str(folder), remedy) from None
    if runtime == "torch":
        return system, system.denoiser
    from compress.quantization.halves import with_runtime
    from compress.quantization.runtime import open_runtime

    return with_runtime(system, folder, runtime), open_runtime(folder, runtime, system.unet)


@contextmanager
def own_stdout() -> Iterator[None]:
    """Sends what native libraries print (Qualcomm's does) to stderr, so that stdout holds our answer alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # C's own buffer would otherwise come out after stdout is back
        os.dup2(kept, 1)
        os.close(kept)
