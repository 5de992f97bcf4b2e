"""A backend whose completions are kept in an SQLite file, so that nothing is asked twice."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, fields, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from threading import Lock
from typing import TypeVar
from weakref import WeakSet

from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.wrappers.base import BackendWrapper
from rankr1_rag.concurrency.event_loop import PerLoop, Threads, raise_backend_error
from rankr1_rag.errors import StoreError
from rankr1_rag.io.checksum import with_checksum, without_checksum
from rankr1_rag.io.collection import Json, member, of_kind
from rankr1_rag.io.jsonl import plain_fields
from rankr1_rag.types import Completion, TokenLogprob

APPLICATION_ID = int.from_bytes(b"RkR1")
VERSION = 1
SCHEMA = "CREATE TABLE completions (key BLOB PRIMARY KEY, completion TEXT NOT NULL)"
INSERT = "INSERT OR REPLACE INTO completions VALUES (?, ?)"
BUSY_SECONDS = 30.0
SQLITE_ERRORS = sqlite3.Error, UnicodeDecodeError
"""What a damaged file raises: SQLite's message may hold some of its bytes."""

log = logging.getLogger("rankr1_rag.store")

T = TypeVar("T")


class Stored(BackendWrapper):
    """Completions of `backend` kept in the SQLite file at `path`, which any number of processes may share.

    A completion is found again if the backend's identity and every field of the request are the same. It comes back
    unchanged, marked `stored`, with the tokens that it cost originally. Equal concurrent requests are asked once.
    `hits` counts the answers that cost nothing, `misses` those from the backend, `damaged` those of the misses whose
    stored completion could not be read; the first is logged.

    A completion is on disk before it is returned. If that fails (on a full disk, for example), it is returned all the
    same, the logger `rankr1_rag.store` reports an error, and every later completion tries again to save it; `close`
    raises StoreError if unsaved ones remain. A file that is damaged, no store, or not writable is a StoreError here.
    """

    def __init__(self, backend: Backend, path: str | os.PathLike[str]) -> None:
        super().__init__(backend)
        self.hits = 0
        self.misses = 0
        self.damaged = 0
        self._file = StoreFile(path)
        self._pending: PerLoop[dict[bytes, PendingRequest]] = PerLoop(dict, per_caller=True)

    async def complete(self, request: Request) -> Completion:
        """The stored completion, or a new one, which is stored; cancelling never undoes a finished one."""
        key = fingerprint(self.identity, request)
        pending = self._pending.get()
        while (other := pending.get(key)) is not None:
            try:
                completion = await other.result()
            except Exception:
                continue  # a failure belongs to the caller who started the request; the others may still ask
            self.hits += 1
            return replace(completion, stored=True)
        return await PendingRequest(partial(self._fetch, key, request), key, pending).result()

    async def _fetch(self, key: bytes, request: Request) -> Completion:
        text = await self._file.in_thread(self._file.read, key)
        if text is not None:
            try:
                completion = replace(from_json(text, key), stored=True)
                self.hits += 1
                return completion
            except ValueError as error:
                self.damaged += 1
                if self.damaged == 1:
                    log.warning("%s: a stored completion is requested again: %s", self._file.path, error)
        task = asyncio.current_task()
        try:
            completion = await self.backend.complete(request)
        except Exception:
            raise
        except BaseException as error:  # this is a task of its own: nobody else must get what it raises
            raise_backend_error(error, self.model, task)
        self.misses += 1
        if completion.logprobs or not request.logprobs:  # else the backend may return them another time
            await self._file.in_thread(self._file.write, key, to_json(completion, key))
        return completion

    async def close(self) -> None:
        """Close the backend and the file. StoreError if completions remain that could not be saved."""
        try:
            await self.backend.close()
        finally:
            if self.damaged > 1:
                log.warning("%s: %d damaged completions were requested again", self._file.path, self.damaged)
            await self._file.in_thread(self._file.close)

    def __repr__(self) -> str:
        return f"stored({self.backend!r}, {str(self._file.path)!r})"


class PendingRequest:
    """A request in progress, listed in `pending` while others may join it; cancelled when nobody waits any more."""

    def __init__(
        self, fetch: Callable[[], Awaitable[Completion]], key: bytes, pending: dict[bytes, PendingRequest]
    ) -> None:
        self._task = asyncio.ensure_future(self._run(fetch))
        self._waiting = 0
        self._key = key
        self._pending = pending
        pending[key] = self

    async def result(self) -> Completion:
        """Wait for the completion; the last caller who is cancelled cancels the request."""
        self._waiting += 1
        try:
            return await asyncio.shield(self._task)
        finally:
            self._waiting -= 1
            if not self._waiting and not self._task.done():
                self._unlist()
                self._task.cancel()
                await asyncio.wait([self._task])

    async def _run(self, fetch: Callable[[], Awaitable[Completion]]) -> Completion:
        try:
            return await fetch()
        finally:
            self._unlist()

    def _unlist(self) -> None:
        if self._pending.get(self._key) is self:
            del self._pending[self._key]


def fingerprint(identity: str, request: Request) -> bytes:
    """A digest of all that the completion depends on. Defaults are left out, so that fields can be added."""
    values = {field.name: getattr(request, field.name) for field in fields(request)}
    changed = {field.name: values[field.name] for field in fields(request) if values[field.name] != field.default}
    changed["messages"] = [dict(message) for message in request.messages]
    changed["temperature"] = float(request.temperature)
    # ASCII, with escapes: texts may hold lone surrogates, which have no UTF-8.
    canonical = json.dumps([identity, changed], sort_keys=True, separators=(",", ":"))
    return sha256(canonical.encode("ascii")).digest()


def to_json(completion: Completion, key: bytes) -> str:
    """A completion as it is stored, with a checksum over its key and itself."""
    return with_checksum(json.dumps(asdict(completion)), key)


def from_json(text: bytes, key: bytes) -> Completion:
    """A completion as it was stored. ValueError where it is damaged; earlier versions wrote no checksum."""
    try:
        values = of_kind("it", json.loads(without_checksum(text.decode(), key)), "an object")
        logprobs = None if values["logprobs"] is None else tuple(map(token_from_json, values["logprobs"]))
        return Completion(**plain_fields(Completion, values), logprobs=logprobs)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is damaged ({error})") from error


def token_from_json(entry: Json) -> TokenLogprob:
    """A token as it was stored; -Infinity is a log-probability, too."""
    top = tuple((of_kind("a token", name, "a string"), of_kind(name, one, "a number")) for name, one in entry["top"])
    return TokenLogprob(member(entry, "token", "a string"), member(entry, "logprob", "a number"), top)


class StoreFile:
    """Texts by key in an SQLite file, used by a thread of its own. StoreError here if it is unusable.

    What is written survives a killed process; a power cut can lose the last few texts (`synchronous=NORMAL`) but does
    not damage the file. A connection must not live through a fork, not even unused
    (https://www.sqlite.org/howtocorrupt.html, 2.6): it is closed before and opened after.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self.connection: sqlite3.Connection | None = open_store(self.path)
        self.start()
        OPEN_FILES.add(self)

    def start(self) -> None:
        """Start the thread, also in a forked child. What is unsaved then will be saved by the parent."""
        self.lock = Lock()
        self._thread = Threads(1, "rankr1-store")
        self._unsaved: dict[bytes, str] = {}

    async def in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """The result of one of the methods below; it runs to its end even if the caller is cancelled."""
        running = asyncio.wrap_future(self._thread.submit(work, *arguments))
        try:
            return await asyncio.shield(running)
        finally:
            if not running.done():
                await asyncio.wait([running])

    def read(self, key: bytes) -> bytes | None:
        """The text with this key, or None."""
        with self.lock:
            if key in self._unsaved:
                return self._unsaved[key].encode()
            query = "SELECT CAST(completion AS BLOB) FROM completions WHERE key = ?"  # damaged, it may be no UTF-8
            try:
                row = self._connected().execute(query, (key,)).fetchone()
            except SQLITE_ERRORS as error:
                raise unusable(self.path, error) from error
            return (row[0] or b"") if row else None

    def write(self, key: bytes, text: str) -> None:
        """Save a text, perhaps in the place of a damaged one. If that fails, it is kept and saved with a later one."""
        with self.lock:
            had_unsaved = bool(self._unsaved)
            self._unsaved[key] = text
            error = self._save()
        if error and not had_unsaved:
            log.error("%s: %s; completions are kept in memory until there is space again", self.path, error)
        if had_unsaved and not error:
            log.warning("%s: can be written again, nothing was lost", self.path)

    def close(self) -> None:
        """Close the file, which opens again when it is used. StoreError if texts remain that cannot be saved."""
        with self.lock:
            error = self._save() if self._unsaved else None
            self.disconnect()
            copy = self._copy() if error else None
        if error:
            raise StoreError(
                f"{self.path}: {len(self._unsaved)} completions were returned but not saved ({error}): free some space "
                f"and run again, only these will be requested again{f', none with the store {copy}' if copy else ''}"
            ) from error

    def _copy(self) -> Path | None:
        """A store of what can be read here and what is unsaved, where temporary files are; None if that fails, too."""
        with suppress(OSError, StoreError, *SQLITE_ERRORS):
            path = Path(mkdtemp(prefix="rankr1-"), self.path.name)
            with closing(open_store(path)) as copy:
                with suppress(*SQLITE_ERRORS), closing(connect(self.path)) as own:
                    own.backup(copy)
                copy.executemany(INSERT, self._unsaved.items())
            return path
        return None

    def disconnect(self) -> None:
        """Close the connection; the next use opens another."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _save(self) -> Exception | None:
        """Commit all that is unsaved; the error if that fails."""
        try:
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany(INSERT, self._unsaved.items())
                connection.execute("COMMIT")
            except SQLITE_ERRORS:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except SQLITE_ERRORS as error:
            return error
        self._unsaved.clear()
        return None

    def _connected(self) -> sqlite3.Connection:
        self.connection = self.connection or connect(self.path)
        return self.connection

    def __reduce__(self) -> tuple[type[StoreFile], tuple[Path]]:
        return type(self), (self.path,)


def check_store_place(path: Path) -> None:
    """StoreError if something that is no file is here, or SQLite would replace a file of someone else next to it."""
    # Looked for first: another process that begins this store makes the file itself before them.
    left = [f"{path}{suffix}" for suffix in ("-wal", "-shm", "-journal") if os.path.lexists(f"{path}{suffix}")]
    if os.path.lexists(path):
        if not path.is_file():
            raise unusable(path, "a folder, a pipe, a device or a link to nothing")
    elif left:
        raise unusable(path, f"{left[0]} would be replaced")


def open_store(path: Path) -> sqlite3.Connection:
    """A connection to the store, which is created if it is missing.

    StoreError unless it is whole and writable; another file is left unchanged.
    """
    check_store_place(path)
    try:
        # Only ever a new file: closing a descriptor of an open store would drop SQLite's locks on it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        pass
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", error)
        raise StoreError(f"{path} cannot be created ({problem}): use a path in a writable directory") from error
    try:
        with ExitStack() as stack:
            connection = stack.enter_context(closing(connect(path)))

            def pragma(name: str) -> object:
                return connection.execute(f"PRAGMA {name}").fetchone()[0]

            if pragma("page_count") == 0:
                connection.execute("BEGIN IMMEDIATE")  # another process may open it now
                if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    connection.execute(SCHEMA)
                    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {VERSION}")
                connection.execute("COMMIT")
            if pragma("application_id") != APPLICATION_ID:
                raise StoreError(f"{path} is an SQLite file of another program: use another path")
            if (version := pragma("user_version")) != VERSION:
                raise StoreError(f"{path} is a store of version {version}, not {VERSION}: use another path")
            pragma("journal_mode = WAL")
            if (problem := pragma("quick_check(1)")) != "ok":
                raise unusable(path, f"damaged: {problem}")
            # Is it writable? SQLite opens a read-only file, and even begins a transaction on it.
            connection.execute(f"PRAGMA user_version = {VERSION}")
            stack.pop_all()
            return connection
    except SQLITE_ERRORS as error:
        raise unusable(path, error) from error


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose transactions are explicit; the lock of StoreFile keeps threads apart."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def unusable(path: Path, problem: object) -> StoreError:
    """The error for a file that cannot be read or written."""
    return StoreError(
        f"{path} cannot be used as a store ({problem}): use another path, or move the file away to begin a new store"
    )


OPEN_FILES: WeakSet[StoreFile] = WeakSet()
held: list[StoreFile] = []
"""From before a fork until after it."""


def before_fork() -> None:
    """Wait for the thread of every store, then hold it without a connection."""
    held.extend(OPEN_FILES)
    for file in held:
        file.lock.acquire()
        file.disconnect()


def after_fork(release: Callable[[StoreFile], None]) -> None:
    """Release every store."""
    while held:
        release(held.pop())


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(
        before=before_fork,
        after_in_parent=lambda: after_fork(lambda file: file.lock.release()),
        after_in_child=lambda: after_fork(StoreFile.start),
    )


stored = Stored
