"""SHA256SUMS: one line a file, in the form that `sha256sum -c` reads, so that any machine can check a bundle."""

from __future__ import annotations

import re
from pathlib import Path

from compress.artifact import sha256_of_file
from compress.errors import Problem, UserError

FILE = "SHA256SUMS"
REMEDY = "Copy the whole bundle again from where stage deploy made it, for example runs/scenes/90-deploy/bundle."
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def write_checksums(folder: Path) -> None:
    """Lists every file under `folder` but the list itself."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / FILE)
    lines = [f"{sha256_of_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths]
    (folder / FILE).write_text("".join(lines))


def check_files(folder: Path) -> None:
    """Raises one UserError that names every file of `folder` that is missing or is not what it was made as."""
    problems = []
    for name, digest in listed(folder).items():
        path = folder / name
        if not path.is_file():
            problems.append(Problem("the file is missing", str(path), REMEDY))
        elif sha256_of_file(path) != digest:
            problems.append(Problem(f"the file is damaged (its sha256 is not that in {FILE})", str(path), REMEDY))
    if problems:
        raise UserError(*problems)


def listed(folder: Path) -> dict[str, str]:
    """File -> sha256 as listed; UserError where there is no list or it cannot be read."""
    path = folder / FILE
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise UserError.of("the file is missing", str(path), REMEDY) from None
    except UnicodeDecodeError:
        raise UserError.of("the file is damaged (it is no text)", str(path), REMEDY) from None
    found = {}
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise UserError.of(f"the file is damaged (line {number} is no checksum)", str(path), REMEDY)
        found[match[2]] = match[1]
    if not found:
        raise UserError.of("the file is damaged (it lists nothing)", str(path), REMEDY)
    return found
