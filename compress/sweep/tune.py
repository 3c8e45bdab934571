"""The same sweep on a Ray cluster: Ray Tune places the workers, restarts those whose node is lost, and shows them.

Each of Tune's trials is one worker of the study, so samplers, ladders, reuse and takeovers are the same as everywhere.
What Tune keeps of its own lies in sweeps/NAME/ray.
"""

from __future__ import annotations

import io
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.errors import UserError
from compress.progress import LineProgress, TerminalProgress
from compress.sweep.jobs import setting

if TYPE_CHECKING:
    from ray import tune

DEFAULTS: dict[str, Any] = {"cpu": 1}  # of each worker
ADDRESS, RETRIES = "address", "max_failures"  # the settings that are no resource
POLL_S, CONNECT_S = 2.0, 10.0
ENDED = "ended"
MAX_FAILURES = 3  # of one worker, after which it is not started again
_QUIET = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # workers find the runs where this command does
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # with which verbose=0 is silent
}


def check_ray(settings: Sequence[str]) -> dict[str, Any]:
    """Ray's settings, KEY=VALUE each: cpu, gpu and other resources of a worker, address of a cluster, max_failures.

    UserError without Ray, and for settings that cannot be read.
    """
    try:
        from ray import tune  # noqa: F401 - so that its absence is told here
    except ImportError:
        remedy = "Install it with `pip install 'pocketdiff[ray]'`, or use --workers, --slurm or --submitit."
        raise UserError.of("Ray Tune is not installed", "--ray", remedy) from None
    chosen = DEFAULTS | dict(setting(text, "--ray-set", "gpu=1 or address=auto") for text in settings)
    for name, value in chosen.items():
        if name != ADDRESS and not (isinstance(value, int | float) and value >= 0):
            remedy = "Give a number, such as cpu=2, gpu=0.5 or max_failures=3; only address is none."
            raise UserError.of(f"{name} is {value!r}", "--ray-set", remedy)
    return chosen


def work(
    worker: Callable[[], object],
    count: int,
    settings: dict[str, Any],
    folder: Path,
    finished: Callable[[], int],
    trials: int,
    progress: TerminalProgress | LineProgress,
) -> None:
    """Runs `worker` in `count` of Tune's trials and waits for all; `finished` tells how many of ours are carried out.

    UserError with the last words of a worker that failed for good. Ctrl-C stops all of them where they are, which loses
    nothing: the same command takes their trials over.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    from ray import tune

    resources = dict(settings)
    address, retries = resources.pop(ADDRESS, None), int(resources.pop(RETRIES, MAX_FAILURES))
    here = Path.cwd()

    def trainable(_: dict[str, Any]) -> dict[str, Any]:
        os.chdir(here)
        worker()
        return {ENDED: True}

    failures, bars = tune.FailureConfig(max_failures=retries), [bar(finished, progress)]
    own = tune.RunConfig(
        name="ray", storage_path=str(folder.absolute()), verbose=0, failure_config=failures, callbacks=bars
    )
    with cluster(address):
        placed, many = tune.with_resources(trainable, resources), tune.TuneConfig(num_samples=count)
        tuner = tune.Tuner(placed, tune_config=many, run_config=own)
        progress.message(f"{count} workers for Ray Tune, each with {_told(resources)}")
        progress.start(trials, "trials", "ray", done=finished())
        try:
            with redirect_stdout(io.StringIO()):  # Tune tells of its trials there, which are not ours
                results = tuner.fit()
        finally:
            progress.close()
    for error in results.errors:
        raise UserError.of(f"a worker failed: {last_words(str(error))}", f"{folder}/ray", "See what it says there.")
    if not all((result.metrics or {}).get(ENDED) for result in results):  # Tune keeps Ctrl-C to itself
        raise KeyboardInterrupt


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Ray's cluster at the address, or this machine as one; UserError where it does not answer."""
    import ray

    try:
        knock(address)  # Ray itself knocks for minutes
        ray.init(address=address, logging_level="CRITICAL", log_to_driver=False)
        logging.getLogger("ray").setLevel(logging.CRITICAL)  # it tells of what fails; so do we, in one message
    except (OSError, RuntimeError, ValueError) as error:
        what = f"Ray does not answer ({str(error).partition(chr(10))[0]})"
        remedy = "Start it (`ray start --head`), give another --ray-set address=..., or none for this machine."
        raise UserError.of(what, "--ray-set", remedy) from None
    try:
        yield
    finally:
        ray.shutdown()


def knock(address: str | None) -> None:
    """OSError if nobody listens at an address of the form HOST:PORT."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()


def bar(finished: Callable[[], int], progress: TerminalProgress | LineProgress) -> tune.Callback:
    """Keeps the progress up to date from within Tune's loop."""
    from ray import tune

    class Bar(tune.Callback):
        def __init__(self) -> None:
            self._done, self._next_s = finished(), 0.0

        def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
            if time.monotonic() < self._next_s:
                return
            now, self._next_s = finished(), time.monotonic() + POLL_S
            progress.advance(now - self._done)
            self._done = now

    return Bar()


def last_words(text: str) -> str:
    """What an error from another process says at its end, without Ray's own words."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return lines[-1].removeprefix("compress.errors.UserError: ") if lines else "nothing"


def _told(resources: dict[str, Any]) -> str:
    return ", ".join(f"{value:g} {name}" for name, value in resources.items())
