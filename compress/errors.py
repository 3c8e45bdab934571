"""The one error a user's mistake raises: it names the value, the place and the remedy (exit code 2)."""

from __future__ import annotations

import errno
from dataclasses import dataclass

# What the system says when a disk takes no more, and what helps.
DISK_ERRORS = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EROFS: "Choose a writable folder",
}


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
    def of(cls, what: str, where: str, remedy: str) -> UserError:
        """The common case of a single problem."""
        return cls(Problem(what, where, remedy))
