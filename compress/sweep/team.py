"""Several workers on this machine: processes of the same command, started, watched and, when one dies, replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.cli import INTERRUPTED, USER_ERROR
from compress.errors import UserError
from compress.progress import LineProgress, TerminalProgress

POLL_S = 0.5
STOP_S = 30.0  # that an interrupted worker has to leave everything in order
MAX_DEATHS = 10  # without a trial finished in between


@dataclass
class Seat:
    """A worker's place, its log, and the process that sits there."""

    number: int
    log: Path
    process: subprocess.Popen[bytes]


class Team:
    """Runs `workers` processes of the `pocketdiff` command `arguments` until all have ended by themselves.

    `finished` tells how many trials are complete. A worker that is killed is replaced; one that ends with an error
    stops the others, and its message is the team's.
    """

    def __init__(self, arguments: Sequence[str], workers: int, logs: Path, finished: Callable[[], int]) -> None:
        self._command = [sys.executable, "-m", "compress.cli", *arguments]
        self._workers, self._logs, self._finished = workers, logs, finished
        self._deaths, self._finished_at_death = 0, -1
        self._seats: list[Seat] = []

    def run(self, trials: int, label: str, progress: TerminalProgress | LineProgress) -> None:
        """Returns when all workers are done. Ctrl-C stops every one of them, in order, before it goes on up."""
        self._logs.mkdir(parents=True, exist_ok=True)
        done = self._finished()
        progress.message(f"{self._workers} workers; what they say is in {self._logs}")
        progress.start(trials, "trials", label, done=done)
        try:
            for number in range(self._workers):
                self._seat(number)
            while self._seats:
                time.sleep(POLL_S)
                for seat in list(self._seats):
                    self._look_after(seat, progress)
                now = self._finished()
                progress.advance(now - done)
                done = now
        finally:
            self._stop()
            progress.close()

    def _seat(self, number: int) -> None:
        log = self._logs / f"{os.uname().nodename}-{number}.log"
        with open(log, "ab") as file:
            # Of a session of its own, so that Ctrl-C at a terminal reaches it once, from here.
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                env=environment(number, self._workers),
                start_new_session=True,
            )
        self._seats.append(Seat(number, log, process))

    def _look_after(self, seat: Seat, progress: TerminalProgress | LineProgress) -> None:
        code = seat.process.poll()
        if code is None:
            return
        self._seats.remove(seat)
        if code == 0:
            return
        if code > 0 and code not in (INTERRUPTED, 128 + signal.SIGKILL):
            said = last_line(seat.log).removeprefix("error: ")
            if code == USER_ERROR:
                raise UserError.of(
                    f"worker {seat.number} stopped: {said}", str(seat.log), "The same command continues."
                )
            raise UserError.of(f"worker {seat.number} failed: {said}", str(seat.log), "See what it says above that.")
        self._count_death(seat)
        how = "stopped" if code == INTERRUPTED else "killed"  # not by this team, which is still at work
        progress.message(f"worker {seat.number} was {how}; another takes its place, and its trial")
        self._seat(seat.number)

    def _count_death(self, seat: Seat) -> None:
        now = self._finished()
        self._deaths = self._deaths + 1 if now == self._finished_at_death else 1
        self._finished_at_death = now
        if self._deaths > MAX_DEATHS:
            what = f"{self._deaths} workers were killed without a trial finished in between"
            raise UserError.of(what, str(seat.log), "If it is for want of memory, use fewer --workers.")

    def _stop(self) -> None:
        for seat in self._seats:
            if seat.process.poll() is None:
                seat.process.terminate()  # as Ctrl-C, but background jobs are deaf to that
        deadline_s = time.monotonic() + STOP_S
        for seat in self._seats:
            try:
                seat.process.wait(max(deadline_s - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                seat.process.kill()
                seat.process.wait()


def environment(number: int, workers: int) -> dict[str, str]:
    """A worker's share of the machine: of its cores and, where several are named, one of its GPUs."""
    found = dict(os.environ)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found.setdefault("OMP_NUM_THREADS", str(max(1, cores // workers)))
    gpus = [gpu for gpu in found.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    if len(gpus) > 1:
        found["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return found


def last_line(log: Path) -> str:
    """The last thing that a log says."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
