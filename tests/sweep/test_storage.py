"""A study's storage: kept whole by kills and full disks, refused with one message where it cannot be used."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from compress.errors import UserError
from compress.recipe import Judge, TeacherRef
from compress.sweep import Objective, Sweep
from compress.sweep.space import ADDED, ATTRIBUTE, fingerprint
from compress.sweep.storage import JOURNAL, open_storage, public
from compress.sweep.study import open_study
from recipes.scenes_full import TEACHER
from tests.sleeper import sleeping_sweep


def closed_port() -> int:
    """Where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://here", "--storage: there is no storage of the kind 'redis://here'. Use journal or one of journal://"),
        ("oracle://me:secret@here", "there is no storage of the kind 'oracle://me@here'"),
        ("study.db", "there is no storage of the kind 'study.db'"),
        ("grpc://here", "the address is 'grpc://here'. Write it as grpc://HOST:PORT."),
        ("sqlite:///nowhere/at/all.db", "the storage does not answer (unable to open database file). Start it"),
        (
            "postgresql://user:secret@127.0.0.1:{port}/study",
            "postgresql://user@127.0.0.1:{port}/study: the storage does",
        ),
        ("postgresql://user@127.0.0.1:port/study", "the address cannot be read"),
        ("journal:////proc/journal.log", "/proc/journal.log: the journal cannot be opened (No such file or directory)"),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_message(tmp_path: Path, url: str, says: str) -> None:
    if url.startswith("postgresql"):
        pytest.importorskip("psycopg")
    port = str(closed_port())
    with pytest.raises(UserError) as told:
        open_storage(url.replace("{port}", port), tmp_path)
    (problem,) = told.value.problems
    assert says.replace("{port}", port) in str(problem) and "secret" not in str(problem)


def test_a_proxy_that_is_not_there_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grpc")
    monkeypatch.setattr("compress.sweep.storage.CONNECT_S", 0.2)
    port = closed_port()
    with pytest.raises(UserError, match=rf"grpc://127.0.0.1:{port}: the storage does not answer .*Start it"):
        open_storage(f"grpc://127.0.0.1:{port}", tmp_path)


def test_a_file_that_is_no_journal_is_one_message(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text("not JSON\nnor this\n")
    with pytest.raises(UserError, match=r"journal\.log: this is no journal of a study"):
        open_storage(None, tmp_path)


def test_passwords_are_not_shown() -> None:
    assert public("postgresql://me:secret@host:5432/db") == "postgresql://me@host:5432/db"
    assert public("postgresql://host/db?user=me&password=secret") == "postgresql://host/db?user=me"
    assert public("sqlite:///a.db") == "sqlite:///a.db" and public(None) == "journal"


def test_a_line_that_a_full_disk_cut_short_is_dropped(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage(None, tmp_path), study_name="cut")
    study.ask()
    whole = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(whole + b'{"op_code":4,"study')
    again = optuna.load_study(storage=open_storage(None, tmp_path), study_name="cut")
    again.ask()
    assert len(optuna.load_study(storage=open_storage(None, tmp_path), study_name="cut").trials) == 2
    assert (tmp_path / JOURNAL).read_bytes().startswith(whole)
    assert all(json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines())


def other(objective: Objective, **fields: object) -> tuple[Objective, ...]:
    return (replace(objective, **fields),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"widths": 8}, "other parameters, recipe"),
        ({"steps": 2}, "other recipe"),
        ({"objectives": True}, "other objectives"),
    ],
)
def test_a_study_of_another_space_is_refused(tmp_path: Path, change: dict[str, object], says: str) -> None:
    made = sleeping_sweep("naps")
    open_study(made, tmp_path)
    if "objectives" in change:
        changed: Sweep = replace(made, objectives=other(made.objectives[0], metric="width"))
    else:
        changed = sleeping_sweep("naps", **change)  # type: ignore[arg-type]
    with pytest.raises(
        UserError, match=rf"the study 'naps' was made by another space: {says}\. Give the sweep another"
    ):
        open_study(changed, tmp_path)
    assert open_study(made, tmp_path).user_attrs["space"] == fingerprint(made)


def test_another_teacher_or_judge_is_another_space(tmp_path: Path) -> None:
    naps = sleeping_sweep("naps")

    def asking(**fields: object) -> Sweep:
        return replace(naps, sample=lambda trial: replace(naps.sample(trial), **fields))  # type: ignore[arg-type]

    few, many = asking(judge=Judge(images=10)), asking(judge=Judge(images=20))
    open_study(few, tmp_path)
    with pytest.raises(UserError, match=r"made by another space: other judge\."):
        open_study(many, tmp_path)
    with pytest.raises(UserError, match=r"made by another space: other judge, teacher\."):
        open_study(asking(teacher=TEACHER), tmp_path)
    with pytest.raises(UserError, match=r"there is no teacher in nowhere"):
        open_study(asking(teacher=TeacherRef(folder="nowhere")), tmp_path / "new")
    assert not list(tmp_path.glob("new/*"))


def test_a_study_from_before_a_part_was_told_goes_on(tmp_path: Path) -> None:
    made = sleeping_sweep("naps")
    study = open_study(made, tmp_path)
    old = {name: value for name, value in fingerprint(made).items() if name not in ADDED}
    study.set_user_attr(ATTRIBUTE, old)
    open_study(made, tmp_path)
    study.set_user_attr(ATTRIBUTE, {name: value for name, value in old.items() if name != "recipe"})
    with pytest.raises(UserError, match="made by another space: other recipe"):
        open_study(made, tmp_path)


def test_trials_of_somebody_else_are_not_taken_for_ours(tmp_path: Path) -> None:
    made = sleeping_sweep("naps")
    foreign = optuna.create_study(
        study_name="naps", storage=open_storage(None, tmp_path), directions=["minimize", "minimize"]
    )
    open_study(made, tmp_path)  # an empty one may be
    foreign.set_user_attr(ATTRIBUTE, None)
    foreign.ask()
    with pytest.raises(UserError, match="the study 'naps' holds trials that no sweep of ours made"):
        open_study(made, tmp_path)


def test_what_cannot_change_a_result_is_no_part_of_the_space() -> None:
    made = sleeping_sweep("naps")
    assert fingerprint(sleeping_sweep("naps", nap_s=1.0)) == fingerprint(made)
    assert fingerprint(replace(made, description="Other words.")) == fingerprint(made)
