"""A backend that asks nothing twice: completions are kept in a file.

Knows what a completion depends on, and that it must not get lost; the file itself is `store_file`'s business.

The SQLite file under `stored`, and the one thread that uses it.

Knows keys and texts; knows nothing of requests and completions. What was written outlives a killed process; a power cut
can take the last few texts (`synchronous=NORMAL`) but does not damage the file. A connection must not live through a
fork, not even unused (https://www.sqlite.org/howtocorrupt.html, 2.6): it is closed before and opened after.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import TypeVar
from weakref import WeakSet

from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.wrappers.base import Around
from rankr1_rag.concurrency.event_loop import PerLoop
from rankr1_rag.errors import BackendError, StoreError
from rankr1_rag.types import Completion, TokenLogprob

_APPLICATION_ID = int.from_bytes(b"RkR1")
_VERSION = 1
_BUSY_SECONDS = 30.0
_SCHEMA = "CREATE TABLE completions (key BLOB PRIMARY KEY, completion TEXT NOT NULL)"

_REMEDY = "give another path, or move the file away if it was a store and begin anew"

_log = logging.getLogger("rankr1_rag.store")


class StoreFile:
    """Texts under keys. StoreError when it is made, if the file is no store or cannot be written."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._lock = Lock()
        self._thread = _one_thread()
        self._unsaved: dict[bytes, str] = {}
        self._connection: sqlite3.Connection | None = self._thread.submit(_opened, self.path).result()
        _FILES.add(self)

    def read(self, key: bytes) -> Future[str | None]:
        """The text under this key, or None."""
        return self._thread.submit(self._read, key)

    def write(self, key: bytes, text: str) -> Future[None]:
        """Save a text, unless there is one already. One that cannot be saved is kept and tried again with the next."""
        return self._thread.submit(self._write, key, text)

    def close(self) -> Future[None]:
        """Close the file, which opens again if it is used again. StoreError if texts are left that cannot be saved."""
        return self._thread.submit(self._close)

    def _read(self, key: bytes) -> str | None:
        with self._lock:
            if key in self._unsaved:
                return self._unsaved[key]
            try:
                row = self._open().execute("SELECT completion FROM completions WHERE key = ?", (key,)).fetchone()
            except sqlite3.Error as error:
                raise _unusable(self.path, error) from error
            return str(row[0]) if row else None

    def _write(self, key: bytes, text: str) -> None:
        with self._lock:
            held = bool(self._unsaved)
            self._unsaved[key] = text
            error = self._save()
        if error and not held:
            _log.error("%s: %s; completions are kept in memory and saved when there is room again", self.path, error)
        if held and not error:
            _log.warning("%s: can be written again, nothing was lost", self.path)

    def _save(self) -> sqlite3.Error | None:
        """Commit all that is not saved; the reason if that fails."""
        try:
            _insert(self._open(), self._unsaved.items())
        except sqlite3.Error as error:
            return error
        self._unsaved.clear()
        return None

    def _close(self) -> None:
        with self._lock:
            error = self._save() if self._unsaved else None
            self._disconnect()
        if error:
            raise StoreError(
                f"{self.path}: {len(self._unsaved)} completions were given out but not saved ({error}): "
                "make room and run again, only these will be asked anew"
            ) from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = _connected(self.path)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def before_fork(self) -> None:
        """Hold the thread still, without a connection."""
        self._lock.acquire()
        self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Go on with a thread of one's own. What is unsaved is the parent's to save."""
        self._lock = Lock()
        self._thread = _one_thread()
        self._unsaved = {}

    def __reduce__(self) -> tuple[type[StoreFile], tuple[Path]]:
        return type(self), (self.path,)


def _insert(connection: sqlite3.Connection, items: Iterable[tuple[bytes, str]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany("INSERT OR IGNORE INTO completions VALUES (?, ?)", items)
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _opened(path: Path) -> sqlite3.Connection:
    """A connection to the store at `path`, made if there is no file, and checked. StoreError."""
    try:
        # Only ever a new file: closing a descriptor of an open store would drop SQLite's locks on it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise StoreError(
            f"{path} cannot be made ({error.strerror}): give a path in a directory that is yours"
        ) from error
    try:
        connection = _connected(path)
    except sqlite3.Error as error:
        raise _unusable(path, error) from error
    try:
        _checked(path, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _connected(path: Path) -> sqlite3.Connection:
    # Transactions are ours to begin and end; the lock of StoreFile keeps threads apart.
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _checked(path: Path, connection: sqlite3.Connection) -> None:
    """See that this is a store, whole and writable; a file that is none is left as it is."""
    try:
        if _pragma(connection, "page_count") == 0:
            _create(connection)
        kind, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
        if kind != _APPLICATION_ID:
            raise StoreError(f"{path} is an SQLite file of another program: give another path")
        if version != _VERSION:
            raise StoreError(f"{path} is a store of version {version}, not {_VERSION}: give another path")
        _pragma(connection, "journal_mode = WAL")
        problem = _pragma(connection, "quick_check(1)")
        if problem != "ok":
            raise StoreError(f"{path} is damaged ({problem}): {_REMEDY}")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise _unusable(path, error) from error


def _create(connection: sqlite3.Connection) -> None:
    """Make the store, once, whoever else opens it now."""
    connection.execute("BEGIN IMMEDIATE")
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables:
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
    connection.execute("COMMIT")


def _pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _unusable(path: Path, error: sqlite3.Error) -> StoreError:
    return StoreError(f"{path} cannot be used as a store ({error}): {_REMEDY}")


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="rankr1-store")


_FILES: WeakSet[StoreFile] = WeakSet()
_held: list[StoreFile] = []  # from before a fork until after it


def _before_fork() -> None:
    _held.extend(_FILES)
    for file in _held:
        file.before_fork()


def _after_fork(go_on: Callable[[StoreFile], None]) -> None:
    while _held:
        go_on(_held.pop())


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=partial(_after_fork, StoreFile.after_fork_in_parent),
        after_in_child=partial(_after_fork, StoreFile.after_fork_in_child),
    )


T = TypeVar("T")


class Stored(Around):
    """Completions of `backend` kept in the SQLite file at `path`, which any number of processes may share.

    A completion is found again if the backend's identity and every field of the request are the same; it comes back as
    it was, marked `stored`, with the tokens that it cost then. Equal requests at the same time are asked once: `hits`
    counts the answers that cost nothing, `misses` those that the backend gave.

    A completion is on disk before it is returned. Where that fails, on a full disk say, it is returned all the same,
    an error is logged (logger `rankr1_rag.store`), and saving is tried again with every later completion; `close`
    raises StoreError if any are left. A file that is damaged, no store, or not writable is a StoreError here, at once.
    """

    def __init__(self, backend: Backend, path: str | os.PathLike[str]) -> None:
        super().__init__(backend)
        self.hits = 0
        self.misses = 0
        self._file = StoreFile(path)
        self._flights: PerLoop[dict[bytes, _Flight]] = PerLoop(dict, per_caller=True)

    async def complete(self, request: Request) -> Completion:
        """The stored completion, or a new one, which is stored; cancelling never takes back what was finished."""
        key = _key(self.identity, request)
        flights = self._flights.get()
        while (flight := flights.get(key)) is not None:
            try:
                completion = await flight.join()
            except Exception:
                continue  # it failed for the one who began it; everyone else may still ask
            self.hits += 1
            return replace(completion, stored=True)
        return await _Flight(partial(self._fetch, key, request), key, flights).join()

    async def _fetch(self, key: bytes, request: Request) -> Completion:
        text = await _finished(self._file.read(key))
        if text is not None:
            self.hits += 1
            return replace(_read(text, self._file), stored=True)
        completion = await self._ask(request)
        self.misses += 1
        if completion.logprobs or not request.logprobs:  # else the backend may give them another time
            await _finished(self._file.write(key, json.dumps(asdict(completion))))
        return completion

    async def _ask(self, request: Request) -> Completion:
        """Ask; in a task of its own, out of which SystemExit and the like would end the whole loop."""
        try:
            return await self.backend.complete(request)
        except (Exception, asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            raise BackendError(f"the backend {self.model!r} failed: {type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Close the backend and the file. StoreError if completions are left that could not be saved."""
        try:
            await self.backend.close()
        finally:
            await _finished(self._file.close())

    def __repr__(self) -> str:
        return f"stored({self.backend!r}, {str(self._file.path)!r})"


class _Flight:
    """A request under way, listed in `flights` as long as one may join it; it goes on as long as anyone waits."""

    def __init__(self, fetch: Callable[[], Awaitable[Completion]], key: bytes, flights: dict[bytes, _Flight]) -> None:
        self._task = asyncio.ensure_future(self._fly(fetch))
        self._waiting = 0
        self._key = key
        self._flights = flights
        flights[key] = self

    async def _fly(self, fetch: Callable[[], Awaitable[Completion]]) -> Completion:
        try:
            return await fetch()
        finally:
            self._unlist()

    def _unlist(self) -> None:
        if self._flights.get(self._key) is self:
            del self._flights[self._key]

    async def join(self) -> Completion:
        self._waiting += 1
        try:
            return await asyncio.shield(self._task)
        finally:
            self._waiting -= 1
            if not self._waiting and not self._task.done():
                self._unlist()
                self._task.cancel()
                await asyncio.wait([self._task])


async def _finished(future: Future[T]) -> T:
    """The result of a thread's job, which is done to the end even if the one who waits is cancelled."""
    waiting = asyncio.wrap_future(future)
    try:
        return await asyncio.shield(waiting)
    finally:
        if not waiting.done():
            await asyncio.wait([waiting])


def _key(identity: str, request: Request) -> bytes:
    """A digest of all that the completion depends on. Fields at their default are left out, so that new ones fit in."""
    values = {field.name: getattr(request, field.name) for field in fields(request)}
    asked = {field.name: values[field.name] for field in fields(request) if values[field.name] != field.default}
    asked["messages"] = [dict(message) for message in request.messages]
    asked["temperature"] = float(request.temperature)
    # ASCII, with escapes: text may hold lone surrogates, which have no UTF-8.
    canonical = json.dumps([identity, asked], sort_keys=True, separators=(",", ":"))
    return sha256(canonical.encode("ascii")).digest()


def _read(text: str, file: StoreFile) -> Completion:
    """A completion as it was stored."""
    try:
        values = json.loads(text)
        if values["logprobs"] is not None:
            values["logprobs"] = tuple(
                TokenLogprob(token["token"], token["logprob"], tuple((name, value) for name, value in token["top"]))
                for token in values["logprobs"]
            )
        return Completion(**values)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file.path} holds a completion that cannot be read ({error}): give another path") from error


stored = Stored
