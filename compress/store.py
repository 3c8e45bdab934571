"""Artefacts shared by machines that share no disk: a folder of any file system that fsspec knows (s3://, gs://, file://).

STORE/<key>/    the artefact with this key; its card is written last, so what has a card is whole
runs/.store/    what was fetched from there; runs take it over as hard links, and it may be deleted at any time
runs/.store/.locks/<key>  held while this key is fetched, so that of several workers one does and the others wait
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from compress.addresses import without_passwords
from compress.artifact import CARD, TEMPORARY, Card, load_card, verify
from compress.errors import Unreachable, UserError, disk_error
from compress.locks import locked

FETCHED, LOCKS = ".store", ".locks"


class Store:
    """The store at `url`, for the runs in one folder. UserError where it is of no known kind, or does not answer."""

    def __init__(self, url: str, runs: Path) -> None:
        self._url, self._fetched = url, runs / FETCHED
        with self._answering():
            import fsspec

            found = fsspec.core.url_to_fs(url)
        self._fs: Any = found[0]
        self._root: str = found[1].rstrip("/")

    def fetch(self, key: str) -> Path | None:
        """A sound copy of the artefact with this key; None where the store has none."""
        folder = self._fetched / key
        if _is_sound(folder, key):
            return folder
        with self._answering():
            if not self._fs.exists(f"{self._root}/{key}/{CARD}"):
                return None
            with locked(self._fetched / LOCKS / key):
                # Whoever had the lock before may have fetched it, and others be taking that copy over by now.
                return folder if _is_sound(folder, key) or self._download(key, folder) else None

    def _download(self, key: str, folder: Path) -> bool:
        """Puts the artefact in place whole, if it comes sound. Only for who holds the key's lock."""
        temporary = folder.with_name(f"{TEMPORARY}{key}")
        shutil.rmtree(temporary, ignore_errors=True)  # a killed process left it
        temporary.mkdir()
        try:
            self._copy(key, temporary)
            if not _is_sound(temporary, key):
                return False
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return True

    def put(self, folder: Path) -> None:
        """Adds a sound artefact under its key, unless the store has it whole."""
        card = load_card(folder)
        place = f"{self._root}/{card.key}"
        with self._answering():
            if self._is_whole(place, card):
                return
            for name in (*card.files, CARD):
                target = f"{place}/{name}"
                self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._fs.put_file(str(folder / name), target)

    def _is_whole(self, place: str, card: Card) -> bool:
        """Whether every file is there with its length; what is inside is checked by who fetches it."""
        if not self._fs.exists(f"{place}/{CARD}"):
            return False
        sizes = {name: entry["bytes"] for name, entry in card.files.items()}
        return all(
            self._fs.exists(f"{place}/{name}") and self._fs.size(f"{place}/{name}") == size
            for name, size in sizes.items()
        )

    def _copy(self, key: str, folder: Path) -> None:
        """The card, then what it lists; a file that would lie outside the folder is left out, and so missed."""
        self._fs.get_file(f"{self._root}/{key}/{CARD}", str(folder / CARD))
        for name in load_card(folder).files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not self._fs.exists(f"{self._root}/{key}/{name}"):
                continue
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            self._fs.get_file(f"{self._root}/{key}/{name}", str(folder / name))

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turns a failure of the store into a UserError; what was computed lies in the run folder all the same."""
        try:
            yield
        except (OSError, ValueError, ImportError) as error:
            if disk_error(error):  # of this machine
                raise
            what = f"the store of artefacts does not answer ({str(error) or type(error).__name__})"
            remedy = "Mend it or give another --artefacts; the same command goes on, and nothing is lost."
            raise Unreachable.of(what, without_passwords(self._url), remedy) from None


def _is_sound(folder: Path, key: str) -> bool:
    if not (folder / CARD).exists():
        return False
    try:
        return verify(folder).key == key
    except UserError:
        return False
