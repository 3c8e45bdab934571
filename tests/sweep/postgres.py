"""A PostgreSQL server of its own for the test that needs one, from the programs that Debian's package installs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def program(name: str) -> str:
    """Where it is; the test skips without it."""
    places = [shutil.which(name), *sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), reverse=True)]
    found = next((place for place in places if place), None)
    return found or pytest.skip("PostgreSQL is not installed: apt-get install postgresql")


@contextmanager
def server() -> Iterator[str]:
    """Runs one on a free port, as another user where we are root, which PostgreSQL refuses; yields its address."""
    pytest.importorskip("psycopg", reason="pip install 'pocketdiff[postgres]'")
    folder = Path(tempfile.mkdtemp(prefix="pocketdiff-postgres-"))
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        who = {"user": "postgres", "group": "postgres", "extra_groups": []}

    def call(name: str, *arguments: str) -> None:
        command = [program(name), *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False, **who)
        assert done.returncode == 0, done.stdout + done.stderr

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = str(folder / "data")
    settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    try:
        call("initdb", "-D", data, "-U", "sweep", "-A", "trust", "--no-sync")
        call("pg_ctl", "-D", data, "-o", settings, "-l", str(folder / "log"), "-t", "300", "-w", "start")
        try:
            yield f"postgresql://sweep@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
