"""Text files as numbered lines, files that appear whole or not at all, and files locked for one process.

`-` is standard input or output, a name that ends in `.gz` is gzipped, everything is UTF-8.
"""

from __future__ import annotations

import gzip
import io
import os
import secrets
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, ParamSpec, TextIO, TypeVar, cast

from rankr1_rag.errors import FileError

FilePath = str | Path

P = ParamSpec("P")
T = TypeVar("T")


LONGEST_LINE = 1 << 27
"""Bytes of a line that is read. A small gzip may hold a line of any length, and all of a line is in memory at once."""
_PIECE = 1 << 20


def numbered_lines(path: FilePath, longest: int = LONGEST_LINE) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, counted from 1, without their ends, one at a time; a byte order mark is dropped.

    FileError where the bytes are not text (not UTF-8, NUL, damaged gzip), where a line has more than `longest` bytes,
    and at the end where there was no line at all.
    """
    blank, number = True, 0
    opened: AbstractContextManager[Any] = nullcontext(sys.stdin.buffer)
    if str(path) != "-":
        opened = (gzip.open if Path(path).suffix == ".gz" else open)(path, "rb")
    with opened as stream:
        try:
            for number, raw in enumerate(iter(partial(stream.readline, _PIECE), b""), start=1):
                if len(raw) == _PIECE:
                    raw = bytearray(raw)  # which grows without a copy
                    while len(raw) <= longest and not raw.endswith(b"\n") and (more := stream.readline(_PIECE)):
                        raw += more
                    if len(raw) > longest:
                        problem = f"the line has more than {longest:,} bytes, the most that is read"
                        raise FileError(path, number, f"{problem}: put one object on a line, or split it")
                line = located(path, number, _decoded, raw)
                if number == 1:
                    line = line.removeprefix("\ufeff")
                if line and not line.isspace():
                    blank = False
                    yield number, line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise FileError(path, number + 1, f"damaged or cut short from here on, fetch it again: {error}") from error
    if blank:
        raise FileError(path, None, "the file is empty: it has no line")


def located(path: FilePath, number: int, parse: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`parse(*args, **kwargs)`; a ValueError that it raises becomes a FileError that names the file and the line."""
    try:
        return parse(*args, **kwargs)
    except ValueError as error:
        raise FileError(path, number, str(error)) from error


def check_folder(path: FilePath | None) -> None:
    """OSError if a file cannot be written at this path, where one is wanted; it is not touched."""
    if path is None or str(path) == "-":
        return
    place, folder = Path(path), Path(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{path}: the folder {folder} does not exist: create it, or use another path")
    if place.is_dir():
        raise IsADirectoryError(f"{path}: this is a folder: use the path of a file")
    if place.is_file() or not place.exists():  # no pipe and no device
        try:
            TemporaryFile(dir=folder).close()  # whole files are written next to the path
        except OSError as error:
            problem = f"{path}: the folder {folder} cannot be written to ({error.strerror}): use another path"
            raise PermissionError(problem) from error


@contextmanager
def writing(path: FilePath) -> Iterator[TextIO]:
    """A text stream for a file that takes its name only when all is written: after an error the old file, or none, is
    there.

    Standard output, pipes and devices are written to as they are.
    """
    if str(path) in ("-", "/dev/stdout"):
        yield sys.stdout
        sys.stdout.flush()
        return
    place = Path(path)
    if place.parts[:2] == ("/", "dev") or (place.exists() and not place.is_file()):
        # A pipe, a device or an open file's descriptor must not be replaced; a folder fails here, at once.
        with place.open("wb") as raw, _encoded(raw, place) as text:
            yield text
        return
    check_folder(path)
    whole = Path(os.path.realpath(path))  # a link stays a link
    part = whole.with_name(f".{whole.name[:50]}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as raw:
            with _encoded(raw, place) as text:
                yield text
            raw.flush()
            os.fsync(raw.fileno())
        part.replace(whole)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def _encoded(raw: BinaryIO, path: Path) -> Iterator[TextIO]:
    # No name and no time in the gzip header: the same lines are the same bytes.
    gzipped = path.suffix == ".gz"
    with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) if gzipped else nullcontext(raw) as stream:
        text = io.TextIOWrapper(cast(BinaryIO, stream), encoding="utf-8", newline="\n")
        try:
            yield text
        finally:
            text.detach()  # flushed, but `raw` stays open for its owner


def _decoded(raw: bytes | bytearray) -> str:
    if raw.startswith(b"\x1f\x8b"):
        raise ValueError("this is gzip: give the file a name that ends in .gz")
    try:
        line = raw.rstrip(b"\r\n").decode()
    except UnicodeDecodeError as error:
        column, byte = error.start + 1, raw[error.start]
        raise ValueError(f"byte 0x{byte:02x} at column {column} is not UTF-8: convert the file to UTF-8") from error
    if "\0" in line:
        raise ValueError(f"NUL at column {line.index(chr(0)) + 1}: a binary file, or UTF-16? Convert it to UTF-8")
    return line


try:
    import fcntl
except ImportError:  # Windows: nothing keeps two processes from one output
    fcntl = None  # type: ignore[assignment]

LOCKS = fcntl is not None
"""Whether this system can lock."""


def locked(path: Path) -> BinaryIO:
    """The file that is now at this path, made if there is none, locked for us. FileError if another process has it."""
    while True:
        file = open(path, "a+b", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.seek(0)
                return file
            file.close()  # its owner before has removed it
        except BaseException as error:
            file.close()
            if isinstance(error, BlockingIOError):
                raise FileError(path, None, "another process is at work on this output: wait for its end") from None
            raise
