"""Where a study lives: a journal file, a database, or a proxy in front of one. All problems are found before any work.

journal:///FILE            a file on a disk that all workers share; the default, in the sweep's own folder
sqlite:///FILE             one machine, a few workers
postgresql://USER:PASSWORD@HOST/DATABASE   any number of machines; other databases of SQLAlchemy's work too
grpc://HOST:PORT           `pocketdiff sweep-server`, which spares the database hundreds of connections
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.addresses import without_passwords
from compress.errors import UserError
from compress.locks import FileLock

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

JOURNAL = "journal.log"
SCHEMES = ("journal", "sqlite", "postgresql", "mysql", "mariadb", "grpc")
CONNECT_S = 10.0
SQLITE_BUSY_S = 60
_CONTINUE = "Start it, or give another --storage; the same command continues."


def open_storage(url: str | None, folder: Path) -> BaseStorage:
    """The storage at `url`, or the journal in `folder`; UserError where it is of no known kind or does not answer."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    scheme, found, rest = (url or "journal").partition("://")
    scheme = scheme.partition("+")[0]
    if scheme == "journal":
        return _journal(Path(rest.removeprefix("/")) if found else folder / JOURNAL)
    if scheme not in SCHEMES or not found:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        what = f"there is no storage of the kind {public(url)!r}"
        raise UserError.of(what, "--storage", f"Use journal or one of {known}.")
    assert url is not None
    return _proxy(rest) if scheme == "grpc" else _database(url)


def public(url: str | None) -> str:
    """The address without its password, for messages and files."""
    return without_passwords(url or "journal")


def storage_errors(url: str | None) -> tuple[type[Exception], ...]:
    """What is raised when the storage at `url` does not answer."""
    import optuna
    from sqlalchemy.exc import DBAPIError, TimeoutError

    errors = (DBAPIError, TimeoutError, optuna.exceptions.StorageInternalError)
    if not (url or "").startswith("grpc"):
        return errors
    import grpc

    return (*errors, grpc.RpcError)


@contextmanager
def answering(url: str | None) -> Iterator[None]:
    """Turns a storage's failure to answer into a UserError that says where and what to do."""
    try:
        yield
    except storage_errors(url) as error:
        text = str(getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error)
        raise UserError.of(f"the storage does not answer ({_first_line(text)})", public(url), _CONTINUE) from None


def _journal(path: Path) -> BaseStorage:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        backend = JournalFileBackend(str(path), lock_obj=JournalLock(path))
        return optuna.storages.JournalStorage(backend)
    except OSError as error:
        remedy = "Give a file that you may write, with --storage journal:///FILE, or another folder with --runs."
        raise UserError.of(f"the journal cannot be opened ({error.strerror})", str(path), remedy) from None
    except ValueError as error:
        remedy = "Give another file with --storage, or move this one away to start anew."
        raise UserError.of(f"this is no journal of a study ({error})", str(path), remedy) from None


class JournalLock:
    """The journal's lock for Optuna, freed with a process that is killed; Optuna's own then stays for 30 s.

    A line that a full disk or a power cut left unfinished is cut off before the next is written, for nothing after it
    could be read.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._lock = FileLock(journal.with_name(f".{journal.name}.lock"))

    def acquire(self) -> bool:
        """Waits for the lock."""
        self._lock.acquire()
        try:
            self._mend()
        except BaseException:
            self._lock.release()
            raise
        return True

    def release(self) -> None:
        """Gives it back."""
        self._lock.release()

    def _mend(self) -> None:
        with open(self._journal, "rb+") as file:
            end = file.seek(0, os.SEEK_END)
            if not end:
                return
            file.seek(end - 1)
            if file.read(1) == b"\n":
                return
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def _database(url: str) -> BaseStorage:
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import ArgumentError

    address = url.replace("postgresql://", "postgresql+psycopg://", 1)
    sqlite = url.startswith("sqlite")
    connect: dict[str, Any] = {"timeout": SQLITE_BUSY_S} if sqlite else {"connect_timeout": int(CONNECT_S)}
    engine: dict[str, Any] = {"connect_args": connect, "pool_pre_ping": not sqlite}
    try:
        with answering(url):
            return RDBStorage(address, engine_kwargs=engine)
    except (ArgumentError, ValueError) as error:
        remedy = "Write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE or sqlite:///FILE."
        raise UserError.of(f"the address cannot be read ({_first_line(str(error))})", public(url), remedy) from None
    except ImportError:
        extra = "'pocketdiff[postgres]'" if url.startswith("postgresql") else "SQLAlchemy's driver for this database"
        remedy = f"Install it with `pip install {extra}`." if "'" in extra else f"Install {extra}."
        raise UserError.of("the database's driver is not installed", public(url), remedy) from None
    except RuntimeError as error:
        remedy = "Give another database, or use the version of Optuna that made this one."
        raise UserError.of(_first_line(str(error)), public(url), remedy) from None


def _proxy(address: str) -> BaseStorage:
    host, _, port = address.rpartition(":")
    url = f"grpc://{address}"
    if not host or not port.isdecimal():
        raise UserError.of(f"the address is {url!r}", "--storage", "Write it as grpc://HOST:PORT.")
    try:
        import grpc  # noqa: F401 - so that its absence is told here
        from optuna.storages import GrpcStorageProxy
    except ImportError:
        remedy = "Install it with `pip install 'pocketdiff[grpc]'`."
        raise UserError.of("gRPC is not installed", "--storage", remedy) from None
    storage = GrpcStorageProxy(host=host, port=int(port))
    try:
        storage.wait_server_ready(timeout=CONNECT_S)
    except ConnectionError:
        what = f"the storage does not answer (nobody listens, for {CONNECT_S:g} s)"
        raise UserError.of(what, url, _CONTINUE) from None
    return storage


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
