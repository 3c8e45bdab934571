"""The study of a sweep: made, or joined if it is there already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compress.errors import UserError
from compress.sweep.definition import Sweep
from compress.sweep.space import check_space, fingerprint
from compress.sweep.storage import JOURNAL, answering, open_storage, public

if TYPE_CHECKING:
    import optuna


def open_study(sweep: Sweep, folder: Path, url: str | None = None) -> optuna.Study:
    """The sweep's study in the storage at `url`, or in the journal in `folder`; created if it is not there yet.

    Raises UserError for a storage that is unknown or does not answer, and for a study that another space made.
    """
    import optuna

    space = fingerprint(sweep)  # first: it may find that the teacher is missing
    storage = open_storage(url, folder)
    with answering(url):
        directions = ["maximize" if objective.maximize else "minimize" for objective in sweep.objectives]
        study = optuna.create_study(study_name=sweep.name, storage=storage, directions=directions, load_if_exists=True)
        check_space(study, sweep, space, str(folder) if url is None else public(url))
    return study


def find_study(sweep: Sweep, folder: Path, url: str | None = None) -> optuna.Study:
    """The same, but only if it is there; nothing is created. UserError where there is no such study."""
    import optuna

    where = str(folder) if url is None else public(url)
    missing = UserError.of(
        f"there is no study {sweep.name!r}",
        where,
        "Run `pocketdiff sweep` first, or name the place of its study with --runs and --storage.",
    )
    if url is None and not (folder / JOURNAL).is_file():
        raise missing
    storage = open_storage(url, folder)
    with answering(url):
        try:
            study = optuna.load_study(study_name=sweep.name, storage=storage)
        except KeyError:
            raise missing from None
        check_space(study, sweep, fingerprint(sweep), where)
    return study
