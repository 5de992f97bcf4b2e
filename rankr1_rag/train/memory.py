"""Memory that a step frees is kept for the next one, on a CPU under glibc.

glibc hands great blocks back to the system as soon as they are free, and the system clears every page of them when the
next step asks again: up to a fifth of the time of a step. What a process holds at most is hardly more for it. Knows
the C library and nothing else.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Of glibc's malloc.h; mallopt(3) tells what they mean."""

PAD = 64 * 2**20
"""Bytes more than needed that are asked for at once."""


def keep() -> None:
    """From now on this process returns nothing to the system until it ends. Does nothing where there is no glibc."""
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return
    for option, value in ((_TRIM_THRESHOLD, -1), (_TOP_PAD, PAD), (_MMAP_MAX, 0)):
        library.mallopt(option, value)
