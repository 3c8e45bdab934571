"""How sure a difference of scores is where both checkpoints answered the same requests from the same noise.

Most verdicts are then equal, and only those that differ make the difference uncertain: a quantized network is told from
its float form by far fewer pictures than two independent sets would take.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from reports.record import Verdicts

KINDS = ("t2i", "edit")
MEASURED, STAND_IN = "htp", "aimet"  # a deployed score is its parent's, plus measured minus stand-in on a few pictures


def error(base: Sequence[Verdicts], new: Sequence[Verdicts], kind: str, name: str) -> float | None:
    """Standard error of new - base; None where they did not answer the same requests.

    `kind` and `name` are a task's ("edit", "add"), or "headline" and t2i, edit or overall. What the emulator's own
    pictures add to a deployed score, on either side, is counted in.
    """
    own = _alike(_form(base, ""), _form(new, ""))
    if own is None:
        return None
    shifts = (_alike(_form(side, STAND_IN), _form(side, MEASURED)) for side in (base, new))
    errors = [_of_score(*pair, kind, name) for pair in (own, *shifts) if pair is not None]
    known = [found for found in errors if found is not None]
    return math.hypot(*known) if len(known) == len(errors) else None


def error_of_forms(verdicts: Sequence[Verdicts], base: str, new: str) -> float | None:
    """Standard error of the overall score of form `new` minus that of form `base`, on the pictures of both."""
    pair = _alike(_form(verdicts, base), _form(verdicts, new))
    return None if pair is None else _of_score(*pair, "headline", "overall")


def matched_error(pairs: Iterable[tuple[str, str]]) -> float | None:
    """Standard error of the difference of two shares over matched verdicts, (base, new) of each task; None of none.

    Half a pair added to each of the four cells keeps it honest where few or no verdicts differ (Agresti and Min,
    "Simple improved confidence intervals for comparing matched proportions", 2005).
    """
    count, lost, won = 2.0, 0.5, 0.5
    for base, new in pairs:
        count += len(base)
        lost += sum(b > n for b, n in zip(base, new, strict=True))
        won += sum(b < n for b, n in zip(base, new, strict=True))
    return math.sqrt(lost + won - (won - lost) ** 2 / count) / count if count > 2 else None


def _form(verdicts: Sequence[Verdicts], form: str) -> Verdicts | None:
    return next((found for found in verdicts if found.form == form), None)


def _alike(base: Verdicts | None, new: Verdicts | None) -> tuple[Verdicts, Verdicts] | None:
    if base is None or new is None or (base.seed, base.pictures) != (new.seed, new.pictures):
        return None
    both = set(base.tasks) & set(new.tasks)
    return (base, new) if both and all(len(base.tasks[task]) == len(new.tasks[task]) for task in both) else None


def _of_score(base: Verdicts, new: Verdicts, kind: str, name: str) -> float | None:
    if kind != "headline":
        return _of_tasks(base, new, [(kind, name)])
    if name in KINDS:
        # tasks take turns, so the mean over tasks is the mean over pictures, to less than a picture a task
        return _of_tasks(base, new, [task for task in base.tasks if task[0] == name])
    kinds = [kind for kind in KINDS if any(task[0] == kind for task in (base.tasks.keys() | new.tasks.keys()))]
    errors = [_of_score(base, new, "headline", kind) for kind in kinds]
    return None if None in errors else math.hypot(*(found for found in errors if found is not None)) / len(kinds)


def _of_tasks(base: Verdicts, new: Verdicts, tasks: Sequence[tuple[str, str]]) -> float | None:
    if not tasks or any(task not in base.tasks or task not in new.tasks for task in tasks):
        return None
    return matched_error((base.tasks[task], new.tasks[task]) for task in tasks)
