"""How what finds more candidates is asked: in a thread of its own, or on the event loop of its owner.

Knows callables and loops; knows nothing of passages, frameworks and rankings.
"""

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
    """What finds objects for a text, called as its owner would call it; `FrameworkLLM` is the same for models.

    `sync` is called in a thread of its own; what it gives may have to be awaited. `native`, where there is one, is
    awaited on the event loop of a caller who awaits. Where one raises NotImplementedError the other is asked.
    """

    sync: Callable[[str], Any]
    native: Callable[[str], Awaitable[Any]] | None = None

    async def find(self, text: str) -> list[Any]:
        """What it finds. Whatever it raises, and TypeError for what is no list of objects.

        RuntimeError for what is no Exception: SystemExit would end the loop for everyone, and a cancellation that is
        none of ours whatever else is open.
        """
        try:
            return await self._found(text)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():  # ours: the caller went away
                raise
            raise _failed(error) from error
        except (Exception, GeneratorExit):
            raise
        except BaseException as error:
            raise _failed(error) from error

    async def _found(self, text: str) -> list[Any]:
        if self.native is None:
            return await self._called(text)
        first, other = self._called, partial(_awaited, self.native)
        if caller.get() is not None:
            first, other = other, first
        try:
            return await first(text)
        except NotImplementedError:
            return await other(text)

    async def _called(self, text: str) -> list[Any]:
        def called() -> Any:  # noqa: ANN401
            found = self.sync(text)
            return found if inspect.isawaitable(found) else _listed(found)

        found = await in_thread(called)
        return await _awaited(lambda _: found, text) if inspect.isawaitable(found) else found


async def _awaited(way: Callable[[str], Awaitable[Any]], text: str) -> list[Any]:
    """Awaited on the caller's event loop, on the private one where he has none."""

    async def awaited() -> list[Any]:
        return _listed(await way(text))

    who = caller.get()
    return await (awaited() if who is None else on_loop(who, awaited))


def _listed(found: Any) -> list[Any]:  # noqa: ANN401
    """All of it, gone through where it was found: that may mean to search."""
    if isinstance(found, (str, bytes, Mapping, Set)) or not isinstance(found, Iterable):
        raise TypeError(f"retrieve= gave {found!r:.200}, not a list of what it found, best first")
    return list(found)


def _failed(error: BaseException) -> RuntimeError:
    return RuntimeError(f"retrieve= raised {type(error).__name__}: {error}")
