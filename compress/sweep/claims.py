"""Which trial a worker works on next: one whose worker died, or a new one, and never more than are wanted.

Every claimed trial has a lock file beside the runs, held by its worker. A trial that the study calls running but whose
lock is free belonged to a worker that died, so another takes it over, under the same number and in the same run
folder; nothing is asked twice. All of this happens under one lock, so that two workers cannot claim the same trial.

Where workers share a storage but no disk, locks tell nothing about trials from elsewhere. There heartbeats do
(`compress.sweep.heartbeat`): a trial that is silent for too long fails, and a copy of it is queued. Of trials that were
asked at the same moment the later ones are given up again if they are too many.

On a ladder a trial that rests on a rung is nobody's: it is claimed again when it may climb on, where its artefacts are.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.locks import FileLock, locked, this_process
from compress.study_record import CLIMB, FOLDER, REASON, WORKER
from compress.sweep.definition import Sweep
from compress.sweep.early import pruner
from compress.sweep.heartbeat import SILENCE_S, Pulses
from compress.sweep.ladder import climb_of, climbers, ended, entered, hopeless, rests, why_stopped
from compress.sweep.sampling import kind_for_next, next_point, sampler, seed_of
from compress.sweep.trial import write_record

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

MAX_ATTEMPTS = 8  # at one trial by workers that all died of it
SURPLUS = "asked at the same time as others, and not needed"
SILENT = "its worker, which shares no disk with the others, gave no sign of life"
_BIRTH_S = 30.0  # between a trial's start and the note of where its worker is, at most


@dataclass(frozen=True)
class Claim:
    """A trial that is this worker's; `taken_over` says that another worker died at it."""

    trial: optuna.Trial
    taken_over: bool


class Claims:
    """The claims of one worker on a study; `folder` is the sweep's, and shared by all workers of this place."""

    def __init__(self, study: optuna.Study, sweep: Sweep, folder: Path, wanted: int, seed: int) -> None:
        self.study, self._sweep, self._wanted, self._seed = study, sweep, wanted, seed
        self._locks, self._pulses = folder / ".trials", Pulses()
        with locked(self._locks / "claims"):
            self._place = _place(self._locks / "place")

    @contextmanager
    def next(self) -> Iterator[Claim | None]:
        """Holds the next trial for as long as the block lasts; None if there is nothing to do at the moment."""
        claim: Claim | None = None
        lock: FileLock | None = None
        try:
            with locked(self._locks / "claims"):
                if not self.done():
                    claim, lock = self._take_over() or self._send_on() or self._ask() or (None, None)
                if claim is None:
                    self._stop_the_rest()
            yield claim
        finally:
            if lock is not None:
                lock.release()

    def done(self) -> bool:
        """Whether there is nothing left to do, for this worker or another."""
        trials = self.study.get_trials(deepcopy=False)
        if sum(map(ended, trials)) >= self._wanted or self._settled(trials):
            return True
        exhausted = self._sweep.grid is not None and next_point(self._sweep, trials, self._seed) is None
        return exhausted and not any(trial.state.name in ("RUNNING", "WAITING") for trial in trials)

    def others_at_work(self) -> list[str]:
        """The workers at trials, as they call themselves."""
        running = [trial for trial in self._others() if trial.state.name == "RUNNING" and not rests(trial)]
        return [trial.user_attrs.get(WORKER, {}).get("process", "a worker that just began") for trial in running]

    def rest(self, claim: Claim, values: Sequence[float] | None, wall_s: float) -> None:
        """Leaves a trial on the rung it was sent to, with what it is worth there; without values it is at the top."""
        climb = climb_of(claim.trial.user_attrs).reached(values, wall_s)
        claim.trial.set_user_attr(CLIMB, climb.as_json())
        ladder = self._sweep.ladder
        if values is None or len(values) > 1 or ladder is None:
            return
        if ladder.rungs[climb.target][0].maximize == self._sweep.objectives[0].maximize:
            claim.trial.report(values[0], climb.target)  # a sampler takes a stopped trial for what it was worth there

    def put_back(self, claim: Claim) -> None:
        """Leaves a trial for whoever comes next; being interrupted is no attempt."""
        self._note(claim.trial, attempts=_attempts(claim.trial.user_attrs) - 1)

    def fail(self, trial: optuna.Trial | FrozenTrial, reason: str) -> bool:
        """Ends a trial without values; another one will be asked in its stead. False if it had ended already."""
        return self._end(trial, "FAIL", reason)

    def prune(self, trial: optuna.Trial | FrozenTrial, reason: str) -> None:
        """Ends a trial that is not worth going on with, or not allowed; the sampler learns from it."""
        self._end(trial, "PRUNED", reason)

    def _take_over(self) -> tuple[Claim, FileLock] | None:
        import optuna

        for trial in self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            lock = FileLock(self._locks / str(trial.number))
            if rests(trial) or not self._is_ours(trial) or not lock.try_acquire():
                continue
            if _attempts(trial.user_attrs) >= MAX_ATTEMPTS:
                self.fail(trial, f"its workers died {MAX_ATTEMPTS} times")
                lock.release()
                continue
            self._prepare(trial.number, self._sweep.sampler)
            return self._claimed(optuna.Trial(self.study, trial._trial_id), True), lock
        return None

    def _send_on(self) -> tuple[Claim, FileLock] | None:
        """The highest resting trial that may climb on. Those that never will are told so, for the sampler to know."""
        import optuna

        if self._sweep.ladder is None:
            return None
        for trial in hopeless(self.study.get_trials(deepcopy=False), self._sweep, self._wanted):
            self.prune(trial, why_stopped(trial, self._sweep))
        for trial in climbers(self.study.get_trials(deepcopy=False), self._sweep, self._wanted):
            lock = FileLock(self._locks / str(trial.number))
            if not self._is_ours(trial) or not lock.try_acquire():
                continue
            self._prepare(trial.number, self._sweep.sampler)
            mine = optuna.Trial(self.study, trial._trial_id)
            mine.set_user_attr(CLIMB, climb_of(trial.user_attrs).sent_on().as_json())
            self._note(mine, attempts=1)
            return Claim(mine, False), lock
        return None

    def _settled(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether all are on the ladder, nobody climbs, and none that may climb on rests here."""
        if self._sweep.ladder is None or sum(map(entered, trials)) < self._wanted or any(map(climbing, trials)):
            return False
        return not any(self._is_ours(trial) for trial in climbers(trials, self._sweep, self._wanted))

    def _stop_the_rest(self) -> None:
        """Ends the trials that rest for good. Those that may climb on are left to the workers of their place."""
        trials = self.study.get_trials(deepcopy=False)
        if not self._settled(trials):
            return
        leave = {trial.number for trial in climbers(trials, self._sweep, self._wanted)}
        for trial in trials:
            if rests(trial) and trial.number not in leave:
                self.prune(trial, why_stopped(trial, self._sweep))

    def _end(self, trial: optuna.Trial | FrozenTrial, state: str, reason: str) -> bool:
        """Ends a trial without values; its record in the run folder says so, and its artefacts may go. False if it had
        ended already."""
        import optuna

        try:
            self.study._storage.set_trial_user_attr(trial._trial_id, REASON, reason)
            self.study.tell(trial.number, state=optuna.trial.TrialState[state])
        except (optuna.exceptions.UpdateFinishedTrialError, ValueError):  # a worker elsewhere was first
            return False
        out = self._locks.parent / str(trial.user_attrs.get(FOLDER, ""))
        if out != self._locks.parent and out.is_dir():
            write_record(out, trial)
        return True

    def _bury(self) -> None:
        """Ends the trials of workers elsewhere that gave no sign of life, and queues a copy of each."""
        for trial in filter(climbing, self.study.get_trials(deepcopy=False)):
            if self._is_ours(trial) or self._pulses.silent_s(trial) < SILENCE_S or not self.fail(trial, SILENT):
                continue
            if (attempts := _attempts(trial.user_attrs)) < MAX_ATTEMPTS:
                nobody = {WORKER: {"place": "", "process": "", "attempts": attempts}}
                self.study.enqueue_trial(trial.params, user_attrs=trial.user_attrs | nobody)

    def _ask(self) -> tuple[Claim, FileLock] | None:
        self._bury()
        trials = self.study.get_trials(deepcopy=False)
        if len(self._others()) >= self._wanted:
            return None
        if self._sweep.grid is not None and not any(trial.state.name == "WAITING" for trial in trials):
            point = next_point(self._sweep, trials, self._seed)
            if point is None:
                return None
            self.study.enqueue_trial(point)
        self._prepare(len(trials), kind_for_next(self._sweep, trials))
        trial = self.study.ask()
        if len(self._others(before=trial.number)) >= self._wanted:
            self.fail(trial, SURPLUS)
            return None
        lock = FileLock(self._locks / str(trial.number))
        lock.acquire()
        return self._claimed(trial, False), lock

    def _prepare(self, number: int, kind: str) -> None:
        """Gives the study what draws a trial's parameters and what may stop it."""
        self.study.sampler, self.study.pruner = sampler(seed_of(self._seed, number), kind), pruner(self._sweep)

    def _others(self, before: int | None = None) -> list[FrozenTrial]:
        """Trials that are carried out, or will be; of those that are running only the ones before a number."""
        trials = filter(entered, self.study.get_trials(deepcopy=False))
        return [trial for trial in trials if ended(trial) or before is None or trial.number < before]

    def _is_ours(self, trial: FrozenTrial) -> bool:
        """Whether a trial's lock would be here. One without a place was left by a worker that died as it asked."""
        worker = trial.user_attrs.get(WORKER)
        if worker is not None:
            return bool(worker["place"] == self._place)
        return self._pulses.silent_s(trial) > _BIRTH_S

    def _claimed(self, trial: optuna.Trial, taken_over: bool) -> Claim:
        self._note(trial, attempts=_attempts(trial.user_attrs) + 1)
        return Claim(trial, taken_over)

    def _note(self, trial: optuna.Trial, attempts: int) -> None:
        value = {"place": self._place, "process": this_process(), "attempts": attempts}
        trial.set_user_attr(WORKER, value)


def climbing(trial: FrozenTrial) -> bool:
    """Whether somebody is at work at a trial, or was until he died."""
    return trial.state.name == "RUNNING" and not rests(trial)


def _attempts(attributes: dict[str, Any]) -> int:
    return int(attributes.get(WORKER, {}).get("attempts", 0))


def _place(path: Path) -> str:
    """A name for the disk that holds these locks, made up by whoever comes first. Call it under the claims' lock."""
    if not path.exists():
        path.write_text(uuid.uuid4().hex)
    return path.read_text()
