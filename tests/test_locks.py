"""A lock keeps others out, and nobody who is dead."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path

from compress.locks import FileLock, is_held, locked, this_process


def test_a_lock_keeps_others_out_until_it_is_released(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert not is_held(first.path)
    assert first.try_acquire() and is_held(first.path)
    assert not second.try_acquire(patience_s=0.05)
    first.release()
    assert not is_held(first.path) and second.try_acquire()


def test_many_share_a_lock_or_one_has_it(tmp_path: Path) -> None:
    with locked(tmp_path / "new" / "lock", shared=True), locked(tmp_path / "new" / "lock", shared=True) as second:
        assert not FileLock(second.path).try_acquire()
    assert FileLock(second.path).try_acquire()


def test_who_waits_is_next(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    first.acquire()
    waiting = threading.Thread(target=second.acquire)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    first.release()
    waiting.join(10)
    assert not waiting.is_alive() and is_held(second.path)


def test_a_note_replaces_the_one_before(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert lock.read() == ""
    lock.acquire()
    lock.note("a long line about nothing")
    lock.note(this_process())
    assert lock.read() == f"process {os.getpid()} on {os.uname().nodename}"


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    here, there = multiprocessing.Pipe()

    def hold() -> None:
        FileLock(tmp_path / "lock").acquire()
        kept = FileLock(tmp_path / "kept")
        kept.acquire()
        there.send("held")
        signal.pause()

    process = multiprocessing.get_context("fork").Process(target=hold)
    process.start()
    assert here.recv() == "held" and is_held(tmp_path / "kept")
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not is_held(tmp_path / "kept")
