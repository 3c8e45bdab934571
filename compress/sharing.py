"""Two processes never compute the same artefact: who comes second waits, and then reuses what the first has made.

runs/.locks/<key>     held while the stage with this key is computed; then it says where the artefact lies
runs/.locks/planning  shared by all who decide what to reuse, held alone by who deletes (`compress.garbage`)
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from compress.artifact import verify
from compress.errors import UserError
from compress.locks import FileLock, this_process

LOCKS = ".locks"


def planning_lock(runs: Path) -> Path:
    """Keeps artefacts in place between the decision to reuse them and the note of it in recipe.json."""
    return runs / LOCKS / "planning"


class StageLock:
    """The right to compute the stage with one key, in one folder of runs.

    `made` is the artefact that was put in place under this lock before, and is sound; else None. `first` says that
    nobody can have held the lock yet. Otherwise who held it may have been killed with the artefact in place and no note
    of it.
    """

    def __init__(self, runs: Path, key: str, lock: FileLock, first: bool) -> None:
        self._runs, self._lock = runs, lock
        said = lock.read()
        self.first = first and not said
        self.made = self._sound(said, key)
        if self.made is None:  # a note that holds stays, for who comes next if this process is killed
            lock.note(this_process())

    def _sound(self, said: str, key: str) -> Path | None:
        try:
            folder = self._runs / json.loads(said)["made"]
            return folder if verify(folder).key == key else None
        except (ValueError, KeyError, TypeError, UserError):
            return None

    def note_made(self, folder: Path) -> None:
        """Tells those who come later where the artefact lies."""
        self._lock.note(json.dumps({"made": os.path.relpath(folder, self._runs)}))


@contextmanager
def stage_lock(runs: Path, key: str, on_wait: Callable[[str], None]) -> Iterator[StageLock]:
    """Holds the lock of a stage's key. If another process has it, tells `on_wait` which, and waits."""
    lock = FileLock(runs / LOCKS / key)
    lock.path.parent.mkdir(parents=True, exist_ok=True)
    first = not lock.path.exists()
    try:
        if not lock.try_acquire():
            first, said = False, lock.read()
            on_wait(said if said and not said.startswith("{") else "another process")  # it may note an artefact
            lock.acquire()
        yield StageLock(runs, key, lock, first)
    finally:
        lock.release()
