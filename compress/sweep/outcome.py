"""What a study has come to so far, as one line of JSON."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from compress.study_record import FOLDER, STAGES
from compress.sweep.definition import Sweep
from compress.sweep.front import losses_of, reference_of
from compress.sweep.ladder import ended
from compress.sweep.trial import RUN

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


def outcome(study: optuna.Study, sweep: Sweep, wall_s: float) -> dict[str, Any]:
    """Trials by state, stages that trials computed and that they found made, the front's hypervolume, all of the whole
    study; `wall_s` of this command."""
    trials = study.get_trials(deepcopy=False)
    run, reused = stages(trials)
    return {
        "trials": dict(sorted(Counter(trial.state.name.lower() for trial in trials).items())),
        "stages_run": run,
        "stages_reused": reused,
        "hypervolume": hypervolume(trials, sweep),
        "wall_s": round(wall_s, 2),
    }


def finished(study: optuna.Study) -> int:
    """How many trials are carried out."""
    return sum(map(ended, study.get_trials(deepcopy=False)))


def stages(trials: list[FrozenTrial]) -> tuple[int, int]:
    """How many stages were computed, and how many were there already, over all trials that got to their end.

    Trials of equal parameters are one run, in one folder, so a stage counts once there, whichever of them got to tell.
    """
    needed = 0
    computed = set()
    for trial in trials:
        made = trial.user_attrs.get(STAGES, {})
        needed += len(made)
        computed |= {(trial.user_attrs.get(FOLDER), stage) for stage, how in made.items() if how == RUN}
    return len(computed), needed - len(computed)


def hypervolume(trials: list[FrozenTrial], sweep: Sweep) -> float | None:
    """Of the values that the complete trials dominate, up to the objectives' `worst`; None without such trials.

    Optuna's own, which keeps it from its users (optuna._hypervolume).
    """
    from optuna._hypervolume import compute_hypervolume

    found = [trial.values for trial in trials if trial.values is not None and trial.state.name == "COMPLETE"]
    if not found:
        return None
    losses = losses_of(found, sweep.objectives)
    reference = reference_of(losses, sweep.objectives)
    return float(compute_hypervolume(losses[(losses <= reference).all(axis=1)], reference))
