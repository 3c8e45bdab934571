"""File locks that outlive nobody: the kernel gives them back with the process that holds them, however it ends.

They are flock's, which Linux also honours on NFS. The files stay: one that is deleted while another process waits for
it would be locked twice.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

GLANCE_S = 0.3  # somebody who only looks whether a lock is held (`is_held`) may seem to hold it for a moment


def this_process() -> str:
    """How a process is named to people who wait for it."""
    return f"process {os.getpid()} on {os.uname().nodename}"


class FileLock:
    """A lock on the file at `path`, in a folder that exists, which may hold a note. OSError where it cannot be made."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._file: IO[str] | None = None

    def acquire(self, shared: bool = False) -> None:
        """Takes the lock, waiting as long as it takes; together with other `shared` owners, or alone."""
        file = open(self.path, "a+")  # noqa: SIM115 - closing it gives the lock back
        try:
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except BaseException:
            file.close()
            raise
        self._file = file

    def try_acquire(self, patience_s: float = 0.0) -> bool:
        """Takes the lock alone, unless another process still has it after `patience_s`."""
        file = open(self.path, "a+")  # noqa: SIM115 - closing it gives the lock back
        deadline_s = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline_s:
                    time.sleep(0.02)
                    continue
                file.close()
                return False
            self._file = file
            return True

    def release(self) -> None:
        """Gives the lock back, if it is held."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def note(self, text: str) -> None:
        """Replaces what the file says. Only for who holds the lock alone."""
        assert self._file is not None
        self._file.truncate(0)  # opened to append, so it is written at the new end
        self._file.write(text)
        self._file.flush()

    def read(self) -> str:
        """What the file says; empty if nothing does."""
        try:
            return self.path.read_text().strip()
        except (OSError, UnicodeDecodeError):
            return ""


@contextmanager
def locked(path: Path, shared: bool = False) -> Iterator[FileLock]:
    """Holds the lock on the file at `path`, waiting for it if need be; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    lock.acquire(shared)
    try:
        yield lock
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock on the file at `path`."""
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
