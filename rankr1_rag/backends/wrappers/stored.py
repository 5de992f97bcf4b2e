"""A backend that asks nothing twice: completions are kept in a file.

Knows what a completion depends on, and that it must not get lost; the file itself is `store_file`'s business.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import asdict, fields, replace
from functools import partial
from hashlib import sha256
from typing import TypeVar

from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.per_loop import PerLane, PerLoop
from rankr1_rag.backends.wrappers.around import Around
from rankr1_rag.backends.wrappers.store_file import StoreFile
from rankr1_rag.errors import BackendError, StoreError
from rankr1_rag.types import Completion, TokenLogprob

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
        self._flights: PerLoop[PerLane[dict[bytes, _Flight]]] = PerLoop(partial(PerLane, dict))

    async def complete(self, request: Request) -> Completion:
        """The stored completion, or a new one, which is stored; cancelling never takes back what was finished."""
        key = _key(self.identity, request)
        flights = self._flights.get().get()
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
