"""An artefact is a folder with a checkpoint and a `card.json`; it appears whole or not at all, and can be verified.

Every file is listed in the card with its size and sha256, so damage is found and named. `content_hash` is the hash of
that list without pictures and pages, which may differ between equal networks.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from compress.errors import Problem, UserError

CARD = "card.json"
TEMPORARY = ".tmp-"  # prefix of folders that are still being written
SET_ASIDE = ".old-"  # prefix of the artefact that is being replaced
_NOT_CONTENT = {".png", ".jpg", ".gif", ".svg", ".html", ".md", ".csv", ".log"}


@dataclass(kw_only=True)
class Card:
    """What an artefact is and where it comes from. Metric names end in a unit, or the number is a score in 0..1."""

    name: str
    stage: str  # the kind of stage that made it
    key: str  # hash of everything that decides the content, known before the stage runs
    code_version: int = 1
    parents: list[dict[str, str]] = field(default_factory=list)  # name, key, content_hash
    content_hash: str = ""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)  # path -> {bytes, sha256}
    spec: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)  # the stage's resolved configuration
    metrics: dict[str, float | None] = field(default_factory=dict)
    curves: dict[str, list[list[float | None]]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    git_commit: str | None = None
    wall_s: float = 0.0
    peak_rss_gb: float = 0.0
    created_utc: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    reused_from: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def load_card(folder: Path) -> Card:
    """The card of the artefact in `folder`; UserError if there is none or it is not a card of this version."""
    path = Path(folder) / CARD
    remedy = "Name an artefact folder (it holds a card.json), or make it again with `pocketdiff run`."
    try:
        raw = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError.of("there is no card.json", str(folder), remedy) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError.of(f"card.json cannot be read ({error})", str(folder), remedy) from None
    if not isinstance(raw, dict):
        raise UserError.of("card.json does not hold an object", str(folder), remedy)
    unknown = sorted(set(raw) - {f.name for f in fields(Card)})
    missing = sorted({"name", "stage", "key"} - set(raw))
    if unknown or missing:
        what = f"card.json has unknown fields {unknown}" if unknown else f"card.json lacks {missing}"
        raise UserError.of(what, str(folder), "It was written by another version of pocketdiff; use that one.")
    return Card(**raw)


def save_card(folder: Path, card: Card) -> None:
    """Writes `card.json` atomically. Numbers that are not finite become null, since JSON has no word for them."""
    write_json(Path(folder) / CARD, asdict(card))


def write_json(path: Path, value: Any) -> None:
    """Replaces the JSON file at `path` atomically; a reader sees the old text or the new, never half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(_finite(value), indent=1, allow_nan=False) + "\n")
    _sync(temporary)
    os.replace(temporary, path)


def write_artifact(folder: Path, build: Callable[[Path], None], card: Card, keep: Path | None = None) -> Card:
    """Lets `build` fill a temporary folder beside `folder`, hashes it, adds the card, and renames it into place.

    Whatever goes wrong before the rename leaves the artefact that stood at `folder` as it was. The one it replaces is
    moved to `keep`, or deleted when `keep` is None. `build` may still fill in `card`'s other fields.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f"{TEMPORARY}{folder.name}")
    _remove(temporary)
    temporary.mkdir()
    try:
        build(temporary)
        card.files = hash_files(temporary)
        card.content_hash = hash_of({name: entry["sha256"] for name, entry in card.files.items() if _is_content(name)})
        save_card(temporary, card)
        for path in [*temporary.rglob("*"), temporary]:
            _sync(path)
        _swap(temporary, folder, keep)
    except BaseException:
        _remove(temporary)
        raise
    return card


def recover(parent: Path, keep: Path | None = None) -> None:
    """Repairs what a killed process left under `parent`: half-written folders go, an artefact set aside comes back."""
    for old in sorted(Path(parent).glob(f"{SET_ASIDE}*")):
        target = old.with_name(old.name.removeprefix(SET_ASIDE))
        if target.exists():
            _retire(old, keep)
        else:
            os.rename(old, target)
    for leftover in Path(parent).glob(f"{TEMPORARY}*"):
        _remove(leftover)


def set_aside(folder: Path, keep: Path) -> None:
    """Moves an artefact into the folder `keep`, under a name that carries its key; replaces an older equal one."""
    try:
        key = load_card(folder).key[:12]
    except UserError:
        key = "unreadable"
    destination = keep / f"{folder.name.removeprefix(SET_ASIDE)}-{key}"
    keep.mkdir(parents=True, exist_ok=True)
    _remove(destination)
    os.rename(folder, destination)


def verify(folder: Path, remedy: str = "") -> Card:
    """The card of the artefact, after checking that every file is there, has its length and its sha256.

    All damaged files are named in one UserError.
    """
    folder = Path(folder)
    card = load_card(folder)
    remedy = remedy or f"Delete {folder} and run its recipe again, or restore the file from where it came."
    damage = {name: what for name in card.files if (what := _damage(folder, card, name))}
    if damage:
        raise UserError(*(Problem(what, str(folder / name), remedy) for name, what in damage.items()))
    return card


def forget_paths(folder: Path) -> None:
    """Drops from `config.json` files where a part was loaded from: no property of the network, and private."""
    for path in Path(folder).rglob("config.json"):
        config = json.loads(path.read_text())
        if isinstance(config, dict) and config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def hash_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Relative path -> {bytes, sha256} of every file under `folder` except the card, in sorted order."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path != Path(folder) / CARD)
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
        for path in paths
    }


def sha256_of_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(value: Any) -> str:
    """Hex sha256 of a JSON value in canonical form: sorted keys, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _damage(folder: Path, card: Card, name: str) -> str | None:
    path, entry = folder / name, card.files[name]
    if not path.is_file():
        return "the file is missing"
    size = path.stat().st_size
    if size < entry["bytes"]:
        return f"the file is truncated: {size} of {entry['bytes']} bytes"
    if size > entry["bytes"] or sha256_of_file(path) != entry["sha256"]:
        return "the file has changed since its card was written (sha256 differs)"
    return None


def _is_content(name: str) -> bool:
    return Path(name).suffix.lower() not in _NOT_CONTENT


def _swap(temporary: Path, folder: Path, keep: Path | None) -> None:
    # A folder cannot be renamed over a full one, so for an instant there is none; `recover` closes that window.
    old = folder.with_name(f"{SET_ASIDE}{folder.name}")
    if folder.exists():
        os.rename(folder, old)
    os.rename(temporary, folder)
    _sync(folder.parent)
    if old.exists():
        _retire(old, keep)


def _retire(folder: Path, keep: Path | None) -> None:
    if keep is None:
        _remove(folder)
    else:
        set_aside(folder, keep)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        path.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
