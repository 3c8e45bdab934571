"""A teacher that others trained: a diffusers folder without a card of ours, known by the bytes of its U-Net."""

from __future__ import annotations

from pathlib import Path

from compress.artifact import Card, hash_of, sha256_of_file
from compress.errors import UserError
from compress.pruning.stream.files import open_checkpoint
from compress.pruning.stream.samples import FILE
from teachers.sdxl import UNET, locate


def open_teacher(path: str) -> tuple[Path, Card]:
    """The local folder and a card that names its content. UserError, before anything is hashed, if it is not whole."""
    try:
        folder = locate(path)
    except FileNotFoundError as error:
        remedy = "Give `--teacher.path` a diffusers folder (it holds unet/), or the id of one such as owner/name."
        raise UserError.of(str(error), "--teacher.path", remedy) from None
    checkpoint = open_checkpoint(folder / UNET)
    files = [checkpoint.folder / "config.json", *checkpoint.files]
    if (samples := folder / FILE).is_file():
        files.append(samples)  # what a student becomes may depend on them
    content_hash = hash_of({file.name: sha256_of_file(file) for file in files})
    return folder, Card(name="teacher", stage="teacher", key=content_hash, content_hash=content_hash)
