"""One private event loop in a daemon thread, where every coroutine of this package runs, and values kept for each loop.

So sync callers, notebooks and callers with an event loop of their own all work, and an async engine never sees its loop
change. A forked child starts a loop of its own.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from rankr1_rag.errors import LoopError

T = TypeVar("T")
EventLoop: TypeAlias = asyncio.AbstractEventLoop


@dataclass(slots=True, eq=False)
class Caller:
    """A task on another event loop that awaits a coroutine of the private loop; `cancelled` once it no longer does.

    `tasks` are those that run on that loop for it.
    """

    loop: EventLoop
    cancelled: bool = False
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)


ENDING = 0.5
"""Seconds that abandoned tasks have to end before their caller."""

caller: ContextVar[Caller | None] = ContextVar("caller", default=None)
"""Inside a coroutine of the private loop: the task that awaits it, None if a plain thread waits.

For objects of the caller's event loop that must not be used on another one, such as a client with open connections."""

blocked_loop: ContextVar[EventLoop | None] = ContextVar("blocked_loop", default=None)
"""Inside a coroutine of the private loop: the event loop that a sync call blocks, waiting for this coroutine.

Such a coroutine must not wait for work that only the blocked loop can finish."""


def running_or_blocked_loop() -> EventLoop | None:
    """The event loop that a sync call from here would block, or that is blocked already."""
    return asyncio._get_running_loop() or blocked_loop.get()


class PerLoop(Generic[T]):
    """One value for each event loop, made on first use: connections, semaphores and futures belong to one loop.

    With `per_caller` sync callers that block an event loop get a value of their own: whoever holds the common one may
    wait for that very loop. A forked child, a pickle and a copy start empty.
    """

    def __init__(self, make: Callable[[], T], *, per_caller: bool = False) -> None:
        self._make = make
        self._per_caller = per_caller
        self._values: WeakKeyDictionary[EventLoop, WeakKeyDictionary[EventLoop, T]] = WeakKeyDictionary()
        self._pid = os.getpid()
        self._inherited: list[object] = []

    def get(self) -> T:
        """The value of the running loop and, with `per_caller`, of the caller of the running coroutine."""
        loop = asyncio.get_running_loop()
        if self._pid != os.getpid():
            self._leave_to_parent()
        values = self._values.get(loop)
        if values is None:
            values = self._values[loop] = WeakKeyDictionary()
        waiting = (blocked_loop.get() or loop) if self._per_caller else loop
        if waiting not in values:
            values[waiting] = self._make()
        return values[waiting]

    def take(self) -> list[tuple[EventLoop, T]]:
        """Remove and return every value of this process, with its loop."""
        if self._pid != os.getpid():
            self._leave_to_parent()
        taken = [(loop, value) for loop, values in self._values.items() for value in values.values()]
        self._values.clear()
        return taken

    def _leave_to_parent(self) -> None:
        # Kept, so that nothing is finalised here: the sockets behind these values are the parent's too.
        self._inherited.append(dict(self._values))
        self._values = WeakKeyDictionary()
        self._pid = os.getpid()

    def __getstate__(self) -> tuple[Callable[[], T], bool]:
        return self._make, self._per_caller

    def __setstate__(self, state: tuple[Callable[[], T], bool]) -> None:
        self.__init__(state[0], per_caller=state[1])  # type: ignore[misc]


class Loop:
    """An event loop that runs in its own daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rankr1-loop", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether coroutines still run here."""
        return self._thread.is_alive()

    def submit(
        self, coroutine: Coroutine[Any, Any, T], awaited_by: Caller | None = None, blocks: EventLoop | None = None
    ) -> concurrent.futures.Future[T]:
        """Start a coroutine here, from any thread; cancelling the future cancels it. LoopError once stopped.

        It runs in a copy of the current context, with `caller` and `blocked_loop` set to the other two.
        """
        if not self._thread.is_alive():
            coroutine.close()
            raise LoopError("the private event loop has ended because Python is exiting")
        tokens = caller.set(awaited_by), blocked_loop.set(blocks)
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        finally:
            caller.reset(tokens[0])
            blocked_loop.reset(tokens[1])

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine here and wait; Ctrl-C cancels it. LoopError on the loop's own thread: it would deadlock."""
        self.refuse_own_thread(coroutine)
        future = self.submit(coroutine, blocks=running_or_blocked_loop())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def refuse_own_thread(self, coroutine: Coroutine[Any, Any, Any] | None = None) -> None:
        """Raise LoopError if this is the loop's own thread, closing the coroutine that cannot run."""
        if threading.current_thread() is self._thread:
            if coroutine is not None:
                coroutine.close()
            raise LoopError("the sync API was called on the private event loop, inside a backend: await arank instead")

    async def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine here and await it from another loop (or this one); cancelling the caller cancels it."""
        here = Caller(asyncio.get_running_loop())
        try:
            return await asyncio.wrap_future(self.submit(coroutine, self.root_caller(here), blocked_loop.get()))
        except asyncio.CancelledError:
            here.cancelled = True
            raise
        except GeneratorExit:
            here.tasks = set()  # nothing can be awaited any more
            raise
        finally:
            if here.tasks:  # abandoned: they end before their caller, so that traces are in order
                await asyncio.wait(here.tasks, timeout=ENDING)

    def root_caller(self, here: Caller) -> Caller | None:
        """The outermost caller: for a backend that awaits on this very loop, the one that awaits the backend."""
        return caller.get() if here.loop is self._loop else here

    def stop(self) -> None:
        """End the loop and its thread; what still runs there is cancelled first."""
        if self.alive:
            asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop)
            self._thread.join(timeout=2)
        if not self._loop.is_running():
            self._loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=1) if tasks else None
        self._loop.stop()


_lock = threading.Lock()
_current: Loop | None = None
_exiting = False


def private_loop() -> Loop:
    """The loop of this process, started on first use; once Python is exiting, one that refuses."""
    global _current
    with _lock:
        if _current is None or not (_current._thread.is_alive() or _exiting):
            _current = Loop()
        return _current


def _forget() -> None:
    """In a forked child: the thread did not come along, and the lock may have been held."""
    global _lock, _current
    _lock = threading.Lock()
    _current = None


@atexit.register
def _leave() -> None:
    global _exiting
    _exiting = True
    if _current is not None:
        _current.stop()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget)
