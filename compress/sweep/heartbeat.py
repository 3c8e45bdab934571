"""Signs of life, by which workers that share a study but no disk know each other's dead; there no lock tells them.

A worker changes an attribute of its trial every `BEAT_S`. Who sees no attribute of a trial change for `SILENCE_S`, by
the clock of the machine it runs on, takes it for dead. So clocks are never compared, and any storage will do; Optuna
has heartbeats for databases that are reached directly, and for nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from compress.study_record import BEAT

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

BEAT_S, SILENCE_S = 60.0, 180.0


@contextmanager
def beating(trial: optuna.Trial, every_s: float = BEAT_S) -> Iterator[None]:
    """Shows that the trial lives for as long as the block lasts."""
    stop = threading.Event()
    arguments = (trial.study._storage, trial._trial_id, every_s, stop)
    thread = threading.Thread(target=_beat, args=arguments, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _beat(storage: BaseStorage, trial_id: int, every_s: float, stop: threading.Event) -> None:
    from optuna.exceptions import UpdateFinishedTrialError

    while not stop.wait(every_s):
        try:
            storage.set_trial_user_attr(trial_id, BEAT, datetime.now(UTC).isoformat(timespec="milliseconds"))
        except UpdateFinishedTrialError:
            return  # somebody took it for dead; its worker is told when it is done
        except Exception:  # one failed beat is no reason to fall silent; the worker meets what lasts
            continue


class Pulses:
    """What one worker has seen of the trials of others, and when that last changed."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[dict[str, Any], float]] = {}

    def silent_s(self, trial: FrozenTrial) -> float:
        """For how long this worker has seen no sign of life; 0 at first sight."""
        now_s = time.monotonic()
        attributes, since_s = self._seen.get(trial.number, (None, now_s))
        if attributes != trial.user_attrs:
            self._seen[trial.number] = (dict(trial.user_attrs), now_s)
            return 0.0
        return now_s - since_s
