"""What a study found, in the few figures and sentences of its page's head."""

from __future__ import annotations

from collections import Counter

from reports import words
from reports.findings import Tile
from reports.study import grid
from reports.study.payload import covered, reference
from reports.study.record import COMPLETE, PRUNED, Study, Trial
from reports.study.tables import shown

NAMES = {"complete": "complete", "pruned": "pruned", "fail": "failed", "running": "running", "waiting": "waiting"}


def tiles(study: Study) -> list[Tile]:
    """The page's headline figures."""
    states = Counter(trial.state for trial in study.trials)
    others = ", ".join(f"{count} {NAMES[state]}" for state, count in states.items() if state != COMPLETE)
    found = [Tile("Trials complete", str(states[COMPLETE]), others or "none pruned or failed")]
    if len(study.objectives) > 1:
        found.append(Tile("On the front", str(len(study.front)), f"of {len(study.comparable)} that may be compared"))
    found += [_best(study, index) for index in range(min(3, len(study.objectives))) if study.comparable]
    if history := covered(study):
        found.append(Tile("Hypervolume", words.score(history[-1][1]), "of the box from best to worst"))
    stages = [stage for trial in study.trials for stage in trial.stages]
    if stages:
        reused = sum(stage.reused for stage in stages)
        note = f"{len(stages) - reused} computed, {reused} reused"
        found.append(Tile("Stages reused", f"{100 * reused / len(stages):.0f} %", note))
    return found


def _best(study: Study, index: int) -> Tile:
    objective = study.objectives[index]
    trial = best_trial(study, index)
    return Tile(
        objective.label[:1].upper() + objective.label[1:], shown(trial.values[index]), f"best, trial {trial.number}"
    )


def best_trial(study: Study, index: int) -> Trial:
    """The comparable trial with the best value of one objective."""
    return min(study.comparable, key=lambda trial: (study.losses(trial)[index], trial.number))


def summary(study: Study) -> str:
    """How many trials, by how many workers, how long, and what could not be compared."""
    workers = {trial.worker for trial in study.trials if trial.worker}
    total = words.duration(sum(trial.wall_s or 0.0 for trial in study.trials))
    sentences = [f"{len(study.trials)} trials" + (f" by {len(workers)} workers" if len(workers) > 1 else "")]
    sentences[0] += f", {total} in all." if total != words.NO_FIGURE else "."
    if study.grid is not None:
        sentences.append(grid.summary(study))
    broken = sum(trial.judged and not trial.feasible for trial in study.trials)
    if broken:
        sentences.append(f"{broken} break a constraint and stand apart.")
    unborn = [trial for trial in study.trials if trial.state == PRUNED and not trial.folder]  # nothing was run of them
    kept = sum(trial.feasible for trial in unborn)
    if unborn:
        why = [(len(unborn) - kept, "for a constraint"), (kept, "as the repeat of another")]
        told = " and ".join(f"{count} {reason}" for count, reason in why if count)
        sentences.append(f"Not carried out: {told}.")
    endless = sum(trial.state == COMPLETE and not trial.judged for trial in study.trials)
    if endless:
        sentences.append(f"{endless} ended without a finite value.")
    return " ".join(sentences)


def box(study: Study) -> str:
    """The corner that the hypervolume is measured from, in words."""
    pairs = zip(study.objectives, reference(study), strict=True)
    return ", ".join(f"{objective.label} {shown(value)}" for objective, value in pairs)
