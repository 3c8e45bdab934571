"""Addresses of databases and stores as they may be shown: in messages, logs and files they carry no password."""

from __future__ import annotations

import re

# scheme://USER:PASSWORD@…, read as SQLAlchemy reads it. A password may hold "/", "?" and, wrongly, "@".
_ACCOUNT = re.compile(r"(\w[\w+.-]*://[^\s:/?@]*):.*@", re.DOTALL)
_SECRET = re.compile(r"(password|passwd|pwd|secret|token)=", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """An address, alone or in a word such as --storage=URL, without its passwords; other text as it is.

    `scheme://USER:PASSWORD@HOST` loses the password, `?name=value&…` every pair whose name tells of one.
    """
    if "://" not in text:
        return text
    place, mark, query = _ACCOUNT.sub(r"\1@", text).partition("?")
    kept = [pair for pair in query.split("&") if not _SECRET.search(pair)]
    return place + mark + "&".join(kept) if any(kept) else place
