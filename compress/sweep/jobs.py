"""The same sweep as jobs that submitit hands to a cluster's scheduler (Slurm), or runs on this machine.

Each job is one worker. What it takes with it is a command, in a file of submitit's own making under
sweeps/NAME/submitit, beside the jobs' logs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.addresses import without_passwords
from compress.errors import UserError
from compress.progress import LineProgress, TerminalProgress

if TYPE_CHECKING:
    import submitit

POLL_S = 2.0
STOP_S = 30.0  # that an interrupted worker has to leave everything in order
DEFAULTS = {"timeout_min": 24 * 60, "cpus_per_task": 2}
CLUSTER = "cluster"  # the one setting that is not the job's: slurm, or local for this machine


class WorkerJob:
    """What a job does: one worker's command. When its time is up, submitit puts it into the queue again."""

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self._arguments, self._folder = list(arguments), str(folder)

    def __call__(self) -> None:
        """Waits for the worker; CalledProcessError if it fails. What ends the job ends the worker, in order."""
        worker = subprocess.Popen([sys.executable, "-m", "compress.cli", *self._arguments], cwd=self._folder)
        try:
            code = worker.wait()
        finally:
            if worker.poll() is None:
                stop(worker)
        if code:
            raise subprocess.CalledProcessError(code, list(map(without_passwords, self._arguments)))

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What submitit puts into the queue for a job that was preempted, or whose time was up: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Asks a process to stop as Ctrl-C does, and kills it if it does not."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def executor(folder: Path, name: str, settings: Sequence[str]) -> submitit.AutoExecutor:
    """submitit's executor with the settings, KEY=VALUE each (timeout_min=600, slurm_partition=gpu, cluster=local).

    UserError without submitit, and for settings that it does not know.
    """
    try:
        import submitit
    except ImportError:
        remedy = "Install it with `pip install 'pocketdiff[submitit]'`, or use --slurm for a script."
        raise UserError.of("submitit is not installed", "--submitit", remedy) from None
    chosen: dict[str, Any] = DEFAULTS | {"name": f"pocketdiff-{name}"} | dict(map(setting, settings))
    try:
        found = submitit.AutoExecutor(folder=folder, cluster=chosen.pop(CLUSTER, None))
        found.update_parameters(**chosen)
    except (NameError, ValueError, AssertionError, RuntimeError) as error:
        remedy = "Use submitit's own names, for example timeout_min=600, slurm_partition=gpu or cluster=local."
        raise UserError.of(str(error).partition("\n")[0], "--submitit-set", remedy) from None
    return found


def setting(text: str, where: str = "--submitit-set", example: str = "timeout_min=600") -> tuple[str, Any]:
    """KEY=VALUE, the value a number where it reads as one."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError.of(f"{text!r} is no setting", where, f"Write it as KEY=VALUE, such as {example}.")
    try:
        parsed = json.loads(value)
    except ValueError:
        return key, value
    return key, parsed if isinstance(parsed, int | float) else value


def work(
    executor: submitit.AutoExecutor,
    job: WorkerJob,
    count: int,
    finished: Callable[[], int],
    trials: int,
    progress: TerminalProgress | LineProgress,
) -> None:
    """Submits `count` jobs and waits until all have ended; `finished` tells how many trials are carried out.

    One that fails stops the others, and its last words are the error. Ctrl-C cancels all.
    """
    with executor.batch():
        jobs = [executor.submit(job) for _ in range(count)]
    progress.message(f"{count} jobs submitted to {executor.cluster}: {', '.join(entry.job_id for entry in jobs)}")
    done = finished()
    progress.start(trials, "trials", "submitit", done=done)
    try:
        while not all(entry.done() for entry in jobs):
            time.sleep(POLL_S)
            now = finished()
            progress.advance(now - done)
            done = now
            check([entry for entry in jobs if entry.done()])
        progress.advance(finished() - done)
        check(jobs)
    finally:
        for entry in jobs:
            if not entry.done():
                entry.cancel()
        progress.close()


def check(jobs: Sequence[submitit.Job[Any]]) -> None:
    """UserError with the last words of the first of these jobs, all ended, that failed."""
    for job in jobs:
        if job.exception() is not None:
            said = last_words(Path(job.paths.stderr))
            raise UserError.of(f"job {job.job_id} failed: {said}", str(job.paths.stderr), "See what it says there.")


def last_words(log: Path) -> str:
    """What a worker says last in its job's log, above what submitit adds."""
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.partition("\nsubmitit ERROR")[0].split("\n") if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or ["nothing"])[-1]
