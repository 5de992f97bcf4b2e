"""Text files as numbered lines, files that appear whole or not at all, and files locked for one process.

`-` is standard input or output, a name that ends in `.gz` is gzipped, everything is UTF-8.
"""

from __future__ import annotations

import errno
import gzip
import io
import os
import re
import secrets
import shutil
import stat
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, ParamSpec, TextIO, TypeVar, cast

from rankr1_rag.errors import FileError

FilePath = str | Path
AnyPath = str | os.PathLike[str]

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


NOTHING, ANYTHING = re.compile(rb"(?!)"), re.compile(b"")
"""The beginning of a file that `writing` may replace: of none, of any file, also through a link."""
_DESCRIPTOR = re.compile(r"-|/dev/(stdin|stdout|stderr|fd/\d+)|/proc/(self|\d+)/fd/\d+")


def is_stream(path: AnyPath) -> bool:
    """Whether this is a pipe, a device or an open file of a process: read and written as it is, never replaced."""
    with suppress(OSError, ValueError):
        mode = os.stat(path).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            return True
    return _DESCRIPTOR.fullmatch(str(path)) is not None


def check_output(path: AnyPath | None, ours: re.Pattern[bytes] | None = None) -> None:
    """FileError if `writing` would refuse this path, where one is wanted. Nothing is touched.

    A file that is not empty may be replaced if `ours` matches its beginning; None: any file, but not through a link.
    """
    if path is None or is_stream(path):
        return
    place, folder = Path(path), ""
    problem = _unfit(place, ours)
    try:
        if not problem:
            folder = os.path.dirname(os.path.realpath(path))
            try_to_write(folder)  # whole files are written next to the path
    except OSError as error:
        problem = f"the folder {folder} cannot be written to ({error.strerror}): use another path"
    if problem:
        raise FileError(place, None, problem)


def _unfit(place: Path, ours: re.Pattern[bytes] | None) -> str:
    """The problem of what is at an output's place, "" if there is none."""
    try:
        found = os.stat(place)
    except (OSError, ValueError) as error:
        if not os.path.isdir(place.parent):
            return f"the folder {place.parent} does not exist: create it, or use another path"
        if os.path.islink(place):
            return f"this is a link to {os.readlink(place)}, where nothing is: use another path"
        return "" if isinstance(error, FileNotFoundError) else f"{getattr(error, 'strerror', error)}: use another path"
    if stat.S_ISDIR(found.st_mode):
        return "this is a folder: use the path of a file"
    if not stat.S_ISREG(found.st_mode):
        return "this is neither a file nor a pipe: use another path"
    if not found.st_mode & 0o222:  # root may write to it all the same
        return "the file is read-only: use another path, or make it writable"
    if found.st_size and (place.is_symlink() if ours is None else not ours.search(_beginning(place))):
        return "the file holds something else than this command writes: use another path, or move it away"
    return ""


def try_to_write(folder: FilePath) -> None:
    """OSError if no file can be written in the folder: the disk may be full."""
    with TemporaryFile(dir=folder) as file:
        file.write(bytes(4096))
        file.flush()


@contextmanager
def named(path: FilePath) -> Iterator[None]:
    """An OSError that says that a file cannot be written further says which."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO):
            name = "standard output" if str(path) == "-" else str(path)
            raise OSError(error.errno, f"{error.strerror}: free some space, or use another path", name) from error
        raise


def _beginning(path: Path) -> bytes:
    """The first 64 KB, and the first line, of up to 16 MB; b"" if it cannot be read."""
    with suppress(OSError, EOFError, zlib.error), (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        begin: bytes = file.read(1 << 16)
        return begin if b"\n" in begin else begin + file.readline(1 << 24)
    return b""


def check_apart(outputs: Iterable[AnyPath | None], inputs: Iterable[AnyPath | None] = ()) -> None:
    """FileError if an output of a command is an input or another output, under whatever names (links, `-`, case)."""

    def same(path: AnyPath, stream: str) -> object:
        """Equal for two names of one file; `-` is the stream."""
        path = stream if str(path) == "-" else path
        with suppress(OSError, ValueError):
            found = os.stat(path)
            # A device has only its name: a terminal may be both standard input and output.
            return str(path) if stat.S_ISCHR(found.st_mode) else (found.st_dev, found.st_ino)
        return os.path.realpath(path).casefold()

    taken = {same(path, "/dev/stdin"): (path, "an input") for path in inputs if path is not None}
    for path in outputs:
        if path is not None:
            if (file := same(path, "/dev/stdout")) in taken:
                other, kind = taken[file]
                raise FileError(Path(path), None, f"{other} is {kind}, and the same file: use another path")
            taken[file] = path, "another output"


def make_folder(path: FilePath) -> None:
    """Make a folder for results if there is none. FileError if there cannot be one."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        try_to_write(path)
    except OSError as error:
        problem = f"not a folder that can be written to ({error.strerror}): give another one as --out"
        raise FileError(path, None, problem) from error


def claim_folder(
    folder: Path,
    mark: str,
    ours: re.Pattern[bytes],
    files: Iterable[str],
    inputs: Iterable[AnyPath | None] = (),
) -> None:
    """Make the folder of a run if there is none. FileError if the run could not write there all that it will write.

    `files` are patterns of what a run writes, folders end in "/". Where the file `mark` does not begin as `ours`, the
    folder is no run's, and none of them may be there: they are the user's. No input, and no store, may have such a
    name, even where nothing is yet.
    """
    make_folder(folder)
    named = [Path(os.path.realpath(path)) for path in inputs if path is not None]
    is_run = (folder / mark).is_file() and ours.search(_beginning(folder / mark)) is not None
    found = []
    for pattern in files:
        parent = (folder / pattern).parent
        for path in named:
            if path.parent == Path(os.path.realpath(parent)) and fnmatch(path.name, Path(pattern).name):
                raise FileError(path, None, "is an input or a store, and the run would write it: use another path")
        if os.path.lexists(parent):
            make_folder(parent)
        for path in parent.iterdir() if parent.exists() else ():
            if not path.match(pattern):
                continue
            if not (is_run or (path.is_file() and not path.stat().st_size)):
                raise FileError(path, None, "is not the file of a run: move it away, or give another --out")
            if path.is_dir() != pattern.endswith("/") or is_stream(path):
                kind = "folder" if pattern.endswith("/") else "file"
                raise FileError(path, None, f"a run needs a {kind} here: give another --out")
            if not path.is_dir():
                check_output(path)
            found.append(path)
    check_apart([folder, *found], named)


@contextmanager
def writing(path: FilePath, ours: re.Pattern[bytes] | None = None) -> Iterator[TextIO]:
    """A text stream for a file that takes its name only when all is written: after an error the old file, or none, is
    there.

    Standard output, pipes and devices are written to as they are. FileError as of `check_output`.
    """
    is_stdout = str(path) == "-"
    with suppress(OSError, ValueError):
        is_stdout = is_stdout or os.path.samestat(os.stat(path), os.fstat(1))
    if is_stdout:
        with named(path):
            yield sys.stdout
            sys.stdout.flush()
        return
    with named(path), writing_bytes(path, ours) as raw, _encoded(raw, Path(path)) as text:
        yield text


@contextmanager
def writing_bytes(path: FilePath, ours: re.Pattern[bytes] | None = None) -> Iterator[BinaryIO]:
    """As `writing`, for bytes, and not for standard output."""
    check_output(path, ours)
    if is_stream(path):
        with open(os.open(path, os.O_WRONLY | os.O_APPEND), "wb") as stream:
            yield stream
        return
    whole = Path(os.path.realpath(path))  # a link stays a link
    part = whole.with_name(f".{whole.name[:50]}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as raw:
            yield raw
            raw.flush()
            os.fsync(raw.fileno())
        if whole.exists():
            shutil.copymode(whole, part)
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
    """The file that is now at this path, made if there is none, locked for us.

    FileError if another process has it, or if it is no file.
    """
    if os.path.lexists(path) and not path.is_file():
        raise FileError(path, None, "no file, but a folder, a pipe, a device or a link to nothing: use another path")
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
