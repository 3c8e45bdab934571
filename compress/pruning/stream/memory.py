"""Keeps what has been freed from counting as used."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_LARGE = 4 << 20


def return_large_blocks() -> None:
    """Makes the C library give every block above 4 MB back to the system as soon as it is freed.

    glibc raises that limit by itself, up to 32 MB, and keeps smaller blocks for later. A stream frees tensors of all
    sizes, few of which are ever asked for again in the same size: at full size 4 GB of holes came together.
    """
    try:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    except (AttributeError, OSError):
        pass  # another C library, with habits of its own
