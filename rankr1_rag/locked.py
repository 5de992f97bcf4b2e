"""A file that one process at a time has. Knows nothing of what is in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from rankr1_rag.errors import FileError

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two processes from one output
    fcntl = None  # type: ignore[assignment]

LOCKS = fcntl is not None
"""Whether this system can lock."""


def locked(path: Path) -> BinaryIO:
    """The file that now stands at this path, made if there is none, ours alone. FileError if another has it."""
    while True:
        file = open(path, "a+b", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
        try:
            if _lock(file, path):
                file.seek(0)
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: BinaryIO, path: Path) -> bool:
    """Whether the file, now locked, still stands at this path: who had it before may have removed it."""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except BlockingIOError:
        raise FileError(path, None, "another process is at work on this output: wait for it") from None
    except FileNotFoundError:
        return False
