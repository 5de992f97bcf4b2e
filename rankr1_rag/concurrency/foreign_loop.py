"""Calls into objects of other pipelines: in a thread of its own, or on the event loop of the caller.

The event loop of a caller may end at any time.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Set
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from rankr1_rag.concurrency.event_loop import Caller, TaskFuture, caller, fail, run_into
from rankr1_rag.errors import BackendError

T = TypeVar("T")

CHECK = 1.0
"""Seconds between two checks that the caller's loop still runs."""


async def in_thread(work: Callable[[], T], slot: AbstractContextManager[object] | None = None) -> T:
    """Call it in a daemon thread of its own: an abandoned request must not keep Python from exiting.

    It is not called if it was cancelled while it waited for the slot, or before.
    """
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            with slot or nullcontext():
                if not future.cancelled():
                    result = context.run(work)
                    with suppress(InvalidStateError):  # cancelled meanwhile
                        future.set_result(result)
        except BaseException as error:
            fail(future, error)

    threading.Thread(target=run, name="rankr1-call", daemon=True).start()
    return await asyncio.wrap_future(future)


async def on_loop(who: Caller, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await it on the caller's loop. BackendError if that loop was closed, or left by its caller, meanwhile."""
    result = asyncio.wrap_future(start(who, work))
    try:
        while not (await asyncio.wait([result], timeout=CHECK))[0]:
            if who.loop.is_closed() or (who.cancelled and not who.loop.is_running()):
                raise BackendError("the event loop of the caller ended while its request was open")
        return result.result()
    finally:
        result.cancel()


def start(who: Caller, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
    """`asyncio.run_coroutine_threadsafe`, for a loop that is not ours; errors are those of `run_into`.

    Nothing is started for a caller that was cancelled: its loop may be ending, and would destroy the task half-way.
    """
    future: TaskFuture[T] = TaskFuture()

    def begin() -> None:
        try:
            if who.cancelled:
                raise RuntimeError("cancelled on its caller's event loop")
            task = who.loop.create_task(run_into(future, work))
            who.tasks.add(task)
            task.add_done_callback(who.tasks.discard)
        except BaseException as error:  # also of a plain function in place of a coroutine function
            fail(future, error)

    who.loop.call_soon_threadsafe(begin)
    return future


@dataclass(frozen=True, slots=True)
class Retriever:
    """Finds objects for a text.

    `sync` is called in a thread of its own; it may return an awaitable. `native`, if there is one, is awaited on the
    event loop of a caller that awaits. If one raises NotImplementedError the other is used.
    """

    sync: Callable[[str], Any]
    native: Callable[[str], Awaitable[Any]] | None = None

    async def find(self, text: str) -> list[Any]:
        """The objects found. Raises any error of the retriever, and TypeError for a result that is no list."""
        if self.native is None:
            return await self._call(text)
        first, other = self._call, partial(listed, self.native)
        if caller.get() is not None:
            first, other = other, first
        try:
            return await first(text)
        except NotImplementedError:
            return await other(text)

    async def _call(self, text: str) -> list[Any]:
        def call() -> Any:  # noqa: ANN401
            found = self.sync(text)
            return found if inspect.isawaitable(found) else read(found)

        found = await in_thread(call)
        return await listed(lambda _: found, text) if inspect.isawaitable(found) else found


async def listed(way: Callable[[str], Awaitable[Any]], text: str) -> list[Any]:
    """Awaited on the caller's event loop, or on the private one if it has none."""

    async def awaited() -> list[Any]:
        return read(await way(text))

    who = caller.get()
    return await (awaited() if who is None else on_loop(who, awaited))


def read(found: Any) -> list[Any]:  # noqa: ANN401
    """All of the result, iterated where it was made: that may mean to search. TypeError for anything but a list."""
    if isinstance(found, (str, bytes, Mapping, Set)) or not isinstance(found, Iterable):
        raise TypeError(f"retrieve= must return a list, best first (got {found!r:.200})")
    return list(found)
