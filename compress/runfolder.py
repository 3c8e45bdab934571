"""The folder of one run: who may write in it, what a killed process left there, and what a redo has finished so far.

runs/<recipe>/  40-joint/ …   the artefacts
                logs/         CSV and TensorBoard logs of finished stages
                recipe.json   the resolved recipe and what was done for each stage
                .kept/        artefacts that another one replaced; still found by their keys
                .work/<key>/  scratch of unfinished stages
                .work/redo/   the same for --fresh and --from, with what they have finished so far
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from compress.artifact import CARD, load_card, recover, set_aside, write_json
from compress.errors import UserError
from compress.locks import GLANCE_S, FileLock, this_process

LOCK = ".lock"


@dataclass(frozen=True)
class Redo:
    """A request to compute stages again although artefacts exist: `--fresh`, or `--from` a stage."""

    fresh: bool
    start: str | None
    finished: tuple[str, ...] = field(default=(), compare=False)  # keys this request has made so far


class RunFolder:
    """Paths and state of one run folder. Nothing is created before `locked`."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.kept = self.path / ".kept"
        self.logs = self.path / "logs"
        self._work = self.path / ".work"
        self._redo = self._work / "redo"

    @contextmanager
    def locked(self, on_wait: Callable[[str], None] | None = None) -> Iterator[RunFolder]:
        """Creates the folder, keeps other processes out of it, and repairs what a killed one left.

        UserError if another process is at work in it; with `on_wait`, tells that which one, and waits.
        """
        lock = FileLock(self.path / LOCK)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            free = lock.try_acquire(GLANCE_S)
        except OSError as error:
            remedy = "Give a folder you may write to, with --out or --runs."
            raise UserError.of(f"the run folder cannot be written ({error.strerror})", str(self.path), remedy) from None
        if not free:
            who = lock.read() or "another process"
            if on_wait is None:
                remedy = "Wait until it is done, stop it, or give another folder with --out."
                raise UserError.of(f"{who} is working in this run folder", str(self.path), remedy)
            on_wait(who)
            lock.acquire()
        try:
            lock.note(this_process())
            recover(self.path, self.kept)
            yield self
            lock.note("")
        finally:
            lock.release()

    def work(self, key: str, redo: Redo | None) -> Path:
        """Scratch folder of the stage with this key; a redo has its own, so that it continues only itself."""
        root = self._redo if redo else self._work
        folder = root / key[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def clear_work(self, key: str, stage: str) -> None:
        """Keeps the logs of a finished stage and deletes its scratch."""
        for folder in (self._work / key[:16], self._redo / key[:16]):
            logs = folder / "logs"
            if logs.is_dir() and any(logs.iterdir()):
                shutil.rmtree(self.logs / stage, ignore_errors=True)
                self.logs.mkdir(exist_ok=True)
                os.replace(logs, self.logs / stage)
            shutil.rmtree(folder, ignore_errors=True)

    def cache(self, shared: Path, redo: Redo | None) -> Path:
        """Folder for derived data: the one all runs share, but a private one where nothing may be reused."""
        folder = self._redo / "cache" if redo and redo.fresh else shared
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def unfinished(self, request: Redo | None) -> Redo | None:
        """The request, with what an interrupted run with the same request has already finished."""
        if request is None:
            return None
        try:
            state = json.loads((self._redo / "state.json").read_text())
            earlier = Redo(state["fresh"], state["start"], tuple(state["finished"]))
        except (OSError, ValueError, KeyError):
            return request
        return earlier if earlier == request else request

    def begin(self, redo: Redo | None) -> None:
        """Notes the request; drops the scratch of a different or finished one."""
        if redo is None:
            return
        if not redo.finished and self.unfinished(redo) is redo:
            shutil.rmtree(self._redo, ignore_errors=True)
        self.note_finished(redo)

    def note_finished(self, redo: Redo) -> None:
        """Writes down which keys the request has made so far."""
        self._redo.mkdir(parents=True, exist_ok=True)
        state = {"fresh": redo.fresh, "start": redo.start, "finished": list(redo.finished)}
        write_json(self._redo / "state.json", state)

    def end(self, redo: Redo | None) -> None:
        """The request is fulfilled: the same request would start over."""
        if redo is not None:
            shutil.rmtree(self._redo, ignore_errors=True)

    def keep_aside_unless(self, folder: Path, key: str) -> bool:
        """Moves an artefact of another configuration to `.kept`, where its key still finds it; True if it did.

        Otherwise the report, or a user, would take it for a stage of this run.
        """
        if not (folder / CARD).exists() or load_card(folder).key == key:
            return False
        set_aside(folder, self.kept)
        return True
