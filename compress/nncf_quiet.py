"""NNCF without its talk: it logs and draws bars on standard output, where `--json` promises one line."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from types import ModuleType


@contextlib.contextmanager
def quiet_nncf() -> Iterator[ModuleType]:
    """The `nncf` module, for calls inside the block: bars on standard error, errors alone logged, Intel not told."""
    os.environ.setdefault("NNCF_CI", "1")  # or it reports to Intel that it was used
    with contextlib.redirect_stdout(sys.stderr):
        import nncf

        logging.getLogger("nncf").setLevel(logging.ERROR)  # its handler keeps the stream of the first import
        yield nncf
