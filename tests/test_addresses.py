"""A password that is part of an address reaches no message and no file."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from compress.addresses import without_passwords
from compress.errors import UserError
from compress.pipeline import run
from compress.plan import Options
from compress.progress import LineProgress
from compress.recipe import Recipe
from compress.store import Store
from tests.sleeper import SleepConfig


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me@host:5432/db"),
        ("postgresql+psycopg://me:secret@host/db", "postgresql+psycopg://me@host/db"),
        ("--storage=postgresql://me:secret@host/db", "--storage=postgresql://me@host/db"),
        ("postgresql://:secret@host/db", "postgresql://@host/db"),
        ("postgresql://me:sec/ret?secret@host/db", "postgresql://me@host/db"),
        ("postgresql://me:sec@ret@host/db", "postgresql://me@host/db"),
        ("postgresql://host/db?password=secret", "postgresql://host/db"),
        ("postgresql://host/db?user=me&password=secret", "postgresql://host/db?user=me"),
        ("postgresql://host/db?sslmode=off&sslpassword=secret&x=1", "postgresql://host/db?sslmode=off&x=1"),
        ("--storage=mysql://me:secret@host/db?PASSWD=secret&x=1", "--storage=mysql://me@host/db?x=1"),
        ("simplecache::ftp://me:secret@host/store", "simplecache::ftp://me@host/store"),
    ],
)
def test_passwords_are_left_out(text: str, shown: str) -> None:
    assert without_passwords(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me@host:5432/db?sslmode=require&passfile=/home/me/.pgpass",
        "grpc://host:50051",
        "sqlite:///a.db",
        "file:///home/a:b@c/store",
        "s3://bucket/a@b",
        "a password=word & more?",
        "me:word@host",
        "",
    ],
)
def test_what_is_no_password_stays(text: str) -> None:
    assert without_passwords(text) == text


def test_the_record_of_a_run_holds_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "sweep",
        "naps",
        "--storage",
        "postgresql://me:secret@host/db",
        "--storage=postgresql://h/db?password=secret",
    ]
    monkeypatch.setattr(sys, "argv", ["/bin/pocketdiff", *words])
    naps = Recipe(name="naps", description="", teacher=None, stages=(SleepConfig(name="a"),))
    run(naps, Options(tmp_path / "naps", tmp_path, shipped=()), LineProgress(io.StringIO()))
    text = (tmp_path / "naps" / "recipe.json").read_text()
    shown = ["sweep", "naps", "--storage", "postgresql://me@host/db", "--storage=postgresql://h/db"]
    assert json.loads(text)["run"]["command"] == ["pocketdiff", *shown] and "secret" not in text


def test_a_store_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="moon://me@artefacts: the store of artefacts does not answer"):
        Store("moon://me:secret@artefacts", tmp_path)
