"""One worker: takes trial after trial until there are enough. Any number of them may work on one study."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from compress.errors import Unreachable, UserError, disk_error
from compress.garbage import collect_sweep
from compress.progress import LineProgress, TerminalProgress, make_progress
from compress.runfolder import RunFolder
from compress.study_record import write_study_record
from compress.sweep.claims import Claim, Claims
from compress.sweep.definition import TRIALS, Sweep, folder_of
from compress.sweep.early import check_early_stop
from compress.sweep.heartbeat import beating
from compress.sweep.ladder import check_ladder, climb_of
from compress.sweep.sampling import check_sampler
from compress.sweep.storage import answering, open_storage, public, storage_errors
from compress.sweep.study import open_study
from compress.sweep.trial import Infeasible, Setting, carry_out

if TYPE_CHECKING:
    import optuna

MAX_FAILURES = 3  # in a row, after which a worker gives up
MAX_INFEASIBLE = 200  # in a row
POLL_S, MAX_POLL_S, TELL_EVERY_S = 0.25, 5.0, 60.0  # looks for a trial come less and less often


def run_sweep(
    sweep: Sweep,
    runs: Path,
    trials: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: TerminalProgress | LineProgress | None = None,
    storage: str | None = None,
    disk_gb: float | None = None,
    store: str | None = None,
) -> optuna.Study:
    """Works on the study until `trials` trials are carried out in all, by default the whole grid or 20; returns it.

    `disk_gb` is a budget for the sweep's folder, kept after every trial as far as that is possible
    (`compress.garbage`); `store` is the address of artefacts that machines share (`compress.store`); study.json tells
    of every trial that ended. Raises UserError before any work for a bad
    number, storage or study, and for constraints that nothing meets.
    """
    progress = progress or make_progress()
    study = prepare(sweep, runs, trials, storage)
    folder = folder_of(sweep, runs)
    claims = Claims(study, sweep, folder, wanted(sweep, trials), seed)
    worker = Worker(claims, Setting(sweep, folder, runs, device, progress, store), storage)
    while worker.step():
        if disk_gb is not None and (freed := collect_sweep(folder, runs, disk_gb)):
            progress.message(freed)
    return study


def wanted(sweep: Sweep, trials: int | None) -> int:
    """How many trials are to be carried out in the end, to whatever rung they get."""
    return (sweep.size or TRIALS) if trials is None else trials


def prepare(sweep: Sweep, runs: Path, trials: int | None, storage: str | None) -> optuna.Study:
    """Checks everything that can be checked before any work, and makes the sweep's folder and study."""
    if wanted(sweep, trials) < 1:
        raise UserError.of(f"--trials is {trials}", "command line", "Ask for at least 1 trial.")
    check_ladder(sweep)
    check_early_stop(sweep)
    check_sampler(sweep)
    folder = folder_of(sweep, runs)
    if storage is not None:
        open_storage(storage, folder)  # an address that cannot be used leaves nothing behind
    with RunFolder(folder).locked(lambda who: None):  # to create the folder, or to say why that fails
        study = open_study(sweep, folder, storage)
        with answering(storage):
            write_study_record(study, sweep, folder, public(storage))
    return study


class Worker:
    """Carries out trials one by one, and tells the study what became of each."""

    def __init__(self, claims: Claims, setting: Setting, storage: str | None) -> None:
        self._claims, self._setting, self._storage = claims, setting, storage
        self._failures = self._infeasible = 0
        self._poll_s, self._told_s = POLL_S, time.monotonic() - TELL_EVERY_S

    def step(self) -> bool:
        """Works on one trial, or waits a moment for others that do; False when nothing is left to do."""
        with answering(self._storage):
            with self._claims.next() as claim:
                if claim is not None:
                    self._poll_s = POLL_S
                    with beating(claim.trial):
                        self._work_on(claim)
                    return True
            if self._claims.done():
                return False
            others = self._claims.others_at_work()
        if others and time.monotonic() - self._told_s >= TELL_EVERY_S:
            self._told_s = time.monotonic()
            self._setting.progress.message(f"all trials are taken; in case one is needed, waiting for {others[0]}")
        time.sleep(self._poll_s)
        self._poll_s = min(2 * self._poll_s, MAX_POLL_S)
        return True

    def _work_on(self, claim: Claim) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self._carry_out(claim)
        except UpdateFinishedTrialError:
            # Its heartbeats were late, so another took it for dead and asks it again; all is there to be reused.
            said = f"trial {claim.trial.number}: taken for dead, and given to another worker meanwhile"
            self._setting.progress.message(said)
            self._record()

    def _carry_out(self, claim: Claim) -> None:
        import optuna

        trial, began_s = claim.trial, time.monotonic()
        if claim.taken_over:
            self._setting.progress.message(f"trial {trial.number}: taken over from a worker that died")
        try:
            values = carry_out(trial, self._setting)
        except Infeasible as reason:
            self._claims.prune(trial, str(reason))  # a sampler learns from pruned trials, not from failed ones
            self._record()
            self._count_infeasible(trial, str(reason))
        except optuna.TrialPruned as reason:
            self._setting.progress.message(f"trial {trial.number}: stopped, {reason}")
            self._claims.prune(trial, str(reason))
            self._record()
        except (optuna.exceptions.UpdateFinishedTrialError, *storage_errors(self._storage)):
            raise
        except Unreachable:
            self._claims.put_back(claim)
            raise
        except UserError as error:
            self._fail(trial, str(error))
            raise
        except Exception as error:
            if disk_error(error):
                self._claims.put_back(claim)
                raise
            self._fail(trial, f"{type(error).__name__}: {error}")
            self._count_failure(trial, error)
        except BaseException:  # Ctrl-C: the trial waits, with all that it has done, for the same command
            self._claims.put_back(claim)
            raise
        else:
            self._tell(claim, values, time.monotonic() - began_s)

    def _tell(self, claim: Claim, values: tuple[float, ...], wall_s: float) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        self._failures = self._infeasible = 0
        if not self._rested(claim, values, wall_s):
            try:
                self._claims.study.tell(claim.trial, values)
            except ValueError as error:
                if "Cannot tell" in str(error):
                    raise UpdateFinishedTrialError(str(error)) from None
                raise
        self._record()

    def _rested(self, claim: Claim, values: tuple[float, ...], wall_s: float) -> bool:
        """Notes on a ladder how far the trial has come; whether that is a rung below the top."""
        ladder = self._setting.sweep.ladder
        if ladder is None:
            return False
        target = climb_of(claim.trial.user_attrs).target
        below = target < len(ladder.rungs)
        self._claims.rest(claim, values if below else None, wall_s)
        if below:
            shown = ", ".join(f"{entry.label} {x:.4g}" for entry, x in zip(ladder.rungs[target], values, strict=True))
            self._setting.progress.message(f"trial {claim.trial.number}: on rung {target} with {shown}")
        return below

    def _fail(self, trial: optuna.Trial, reason: str) -> None:
        self._claims.fail(trial, reason)
        self._record()

    def _record(self) -> None:
        setting = self._setting
        write_study_record(self._claims.study, setting.sweep, setting.folder, public(self._storage))

    def _count_failure(self, trial: optuna.Trial, error: Exception) -> None:
        self._failures += 1
        self._setting.progress.message(f"trial {trial.number}: failed ({type(error).__name__}: {error})")
        if self._failures >= MAX_FAILURES:
            raise error

    def _count_infeasible(self, trial: optuna.Trial, reason: str) -> None:
        self._infeasible += 1
        self._setting.progress.message(f"trial {trial.number}: not carried out, {reason}")
        if self._infeasible >= MAX_INFEASIBLE:
            what = f"{MAX_INFEASIBLE} trials in a row broke a constraint or repeated another; of the last, {reason}"
            remedy = "Loosen the constraints, or make the space larger."
            raise UserError.of(what, f"sweep {self._setting.sweep.name!r}", remedy)
