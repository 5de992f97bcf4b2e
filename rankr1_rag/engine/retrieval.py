"""Calls a retriever between two hops: in a thread of its own, or on the event loop of its caller."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

from rankr1_rag.concurrency.event_loop import caller
from rankr1_rag.concurrency.foreign_loop import in_thread, on_loop


@dataclass(frozen=True, slots=True)
class Retriever:
    """Finds objects for a text.

    `sync` is called in a thread of its own; it may return an awaitable. `native`, if there is one, is awaited on the
    event loop of a caller that awaits. If one raises NotImplementedError the other is used.
    """

    sync: Callable[[str], Any]
    native: Callable[[str], Awaitable[Any]] | None = None

    async def find(self, text: str) -> list[Any]:
        """The objects found. Raises any error of the retriever, and TypeError for a result that is no list.

        RuntimeError in place of a BaseException: SystemExit would end the loop for everyone, and a cancellation that
        is not ours would cancel whatever else is open.
        """
        try:
            if self.native is None:
                return await self._call(text)
            first, other = self._call, partial(listed, self.native)
            if caller.get() is not None:
                first, other = other, first
            try:
                return await first(text)
            except NotImplementedError:
                return await other(text)
        except (Exception, GeneratorExit):
            raise
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                raise  # the caller was cancelled, not the retriever
            raise RuntimeError(f"retrieve= raised {type(error).__name__}: {error}") from error

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
        raise TypeError(f"retrieve= must return a list of passages, best first (got {found!r:.200})")
    return list(found)
