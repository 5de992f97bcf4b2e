"""Where merged models are kept: in the user's cache folder, each under the digests of base, adapter and itself.

A file that is damaged is made anew; of processes that need one at once, one makes it and the others wait. Where nothing
can be kept there it is made for one process, which is told. Knows files; knows nothing of tensors and runtimes.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import platformdirs

from rankr1_rag.backends.openvino import lora, weights
from rankr1_rag.backends.openvino.lora import merge
from rankr1_rag.errors import BackendError, FileError
from rankr1_rag.io.files import locked

KEPT = 4
"""So many stay: of more, those that were not used for longest are removed when one is made."""

PATIENCE = 600.0
"""Seconds to wait for another process that makes the same one."""


@contextmanager
def merged(base: Path, adapter: Path) -> Iterator[tuple[Path, str | None]]:
    """The file of this model with this adapter, there until this ends, and what the user should hear, if anything.

    BackendError where they do not belong together, or where there is no room anywhere.
    """
    with ExitStack() as stack:
        yield _ready(stack, base, adapter)


def _ready(stack: ExitStack, base: Path, adapter: Path) -> tuple[Path, str | None]:
    key = f"{weights.digest(base)}-{weights.adapter_digest(adapter)}"
    try:
        return _kept(folder(), key, base, adapter), None
    except OSError as error:
        problem = str(error)
    try:
        once = tempfile.TemporaryDirectory(prefix="rankr1-", ignore_cleanup_errors=True)
        return _made(Path(stack.enter_context(once)), key, base, adapter), _NOTICE.format(problem)
    except OSError as error:
        raise BackendError(
            f"the model cannot be merged with its adapter: neither the cache folder ({problem}) nor the temporary one "
            f"({error}) can be written: make room, or name others in XDG_CACHE_HOME and TMPDIR"
        ) from error


_NOTICE = (
    "the model with its adapter cannot be kept ({}): it is made anew each time one is loaded. Make that folder "
    "writable, or name another in XDG_CACHE_HOME"
)


def folder() -> Path:
    """The user's cache folder for merged models. OSError where there is none."""
    path = platformdirs.user_cache_path("rankr1-rag", appauthor=False) / "models"
    if not path.is_absolute():
        raise FileNotFoundError(f"no home folder: {path} is a path in whatever folder this is")
    return path


def _kept(place: Path, key: str, base: Path, adapter: Path) -> Path:
    if path := _found(place, key):
        return path
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = place / f"{key}.lock"
    with _ours(lock):
        try:
            path = _found(place, key) or _made(place, key, base, adapter)
        finally:
            lock.unlink(missing_ok=True)
    _forget(place)
    return path


def _found(place: Path, key: str) -> Path | None:
    """A whole file, marked as used now."""
    for path in place.glob(f"{key}.*.gguf"):
        if path.suffixes[-2] == f".{weights.digest(path)}":
            with suppress(OSError):
                os.utime(path)
            return path
    return None


def _made(place: Path, key: str, base: Path, adapter: Path) -> Path:
    """A new file, whole or not at all; what is damaged of an old one goes."""
    part = place / f"{key}.part"
    try:
        with part.open("wb") as out:
            merge(base, lora.read_lora(adapter), out)
            out.flush()
            os.fsync(out.fileno())
        for damaged in place.glob(f"{key}.*.gguf"):
            damaged.unlink(missing_ok=True)
        return part.replace(place / f"{key}.{weights.digest(part)}.gguf")
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _ours(lock: Path) -> BinaryIO:
    """The lock, as soon as nobody else has it. TimeoutError, an OSError, after too long."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return locked(lock)
        except FileError as error:
            if time.monotonic() > until:
                raise TimeoutError(f"{lock}: another process has had it for {PATIENCE:.0f} s") from error
            time.sleep(0.05)


def _forget(place: Path) -> None:
    """Remove the files that were not used for longest, and what a process left that was killed while it merged."""
    with suppress(OSError):
        used = sorted(place.glob("*.gguf"), key=_used)
        parts = [part for part in place.glob("*.part") if time.time() - _used(part) > 2 * PATIENCE]
        for path in used[:-KEPT] + parts:
            path.unlink(missing_ok=True)


def _used(path: Path) -> float:
    return path.stat().st_mtime
