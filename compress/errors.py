"""The one error a user's mistake raises: it names the value, the place and the remedy (exit code 2)."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from typing import Self

# What the system says when a disk takes no more, and what helps.
DISK_ERRORS = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EFBIG: "Allow larger files (`ulimit -f`), or choose another disk",
    errno.EROFS: "Choose a writable folder",
}
_RUST = re.compile(r"\(os error (\d+)\)")  # safetensors: I/O error: No space left on device (os error 28)
_TORCH = re.compile(r"PytorchStreamWriter failed writing|inline_container.* unexpected pos")  # does not say why


@dataclass(frozen=True)
class Problem:
    """One mistake: `what` is wrong (with the value), `where` it stands, and the `remedy`."""

    what: str
    where: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.remedy}"


class UserError(Exception):
    """Raised before expensive work for anything the user can fix; carries every problem found, not just the first."""

    def __init__(self, *problems: Problem) -> None:
        if not problems:
            raise ValueError("a UserError needs at least one Problem")
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))

    @classmethod
    def of(cls, what: str, where: str, remedy: str) -> Self:
        """The common case of a single problem."""
        return cls(Problem(what, where, remedy))


class Unreachable(UserError):
    """Something that the work needs does not answer; nothing is wrong with the work, which goes on when it does."""


def disk_error(error: BaseException) -> UserError | None:
    """What to tell of a disk that takes no more, if that is what `error` says: as Python, safetensors and torch do."""
    number, where, said = None, "disk", None
    if isinstance(error, OSError):
        number, where, said = error.errno, str(error.filename or where), error.strerror
    elif found := _RUST.search(str(error)):
        number = int(found[1])
    elif _TORCH.search(str(error)):
        number = errno.ENOSPC
    if number not in DISK_ERRORS:
        return None
    return UserError.of(said or os.strerror(number), where, f"{DISK_ERRORS[number]}, then run again.")
