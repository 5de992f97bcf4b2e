"""One value for each event loop: connections, semaphores and futures belong to the loop they were made on.

Also to the process: a forked child starts without any, and leaves the parent's alone. And what callers wait for in turn
is kept apart for those who hold up an event loop meanwhile. Knows nothing of what it keeps.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from rankr1_rag.concurrency.event_loop import held_up

T = TypeVar("T")


class PerLoop(Generic[T]):
    """`get()` gives the running loop's value, made when first asked for. A pickle or a copy of it starts empty."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()
        self._pid = os.getpid()
        self._inherited: list[object] = []

    def get(self) -> T:
        """The value of the running loop."""
        loop = asyncio.get_running_loop()
        if self._pid != os.getpid():
            self._leave_to_parent()
        if loop not in self._values:
            self._values[loop] = self._make()
        return self._values[loop]

    def take(self) -> list[tuple[asyncio.AbstractEventLoop, T]]:
        """Every value of this process with its loop, which are forgotten here."""
        if self._pid != os.getpid():
            self._leave_to_parent()
        taken = list(self._values.items())
        self._values.clear()
        return taken

    def _leave_to_parent(self) -> None:
        # Kept, so that nothing is finalised here: the sockets behind these values are the parent's too.
        self._inherited.append(dict(self._values))
        self._values = WeakKeyDictionary()
        self._pid = os.getpid()

    def __reduce__(self) -> tuple[type[PerLoop[T]], tuple[Callable[[], T]]]:
        return type(self), (self._make,)


class PerLane(Generic[T]):
    """One value for all callers, but another for sync ones who hold up the event loop that they wait in.

    What holds the common one may be waiting for that very loop, and both would wait for ever.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._common = make()
        self._apart: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()

    def get(self) -> T:
        """The value for the caller of the running coroutine."""
        loop = held_up.get()
        if loop is None:
            return self._common
        if loop not in self._apart:
            self._apart[loop] = self._make()
        return self._apart[loop]
