"""One private event loop in a thread kept for life, where every coroutine of this package lives.

So sync callers, notebooks and callers with a loop of their own all work, and an async engine never sees its loop
change. After a fork the child gets a loop of its own. The thread is a daemon and ends with Python. Knows nothing of
ranking.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from rankr1_rag.errors import LoopError

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Caller:
    """Who awaits a coroutine here, on an event loop of his own; `gone` once he was cancelled."""

    loop: asyncio.AbstractEventLoop
    gone: bool = False


caller: ContextVar[Caller | None] = ContextVar("caller", default=None)
"""Inside a coroutine here: who awaits it, None where a plain thread waits.

For what belongs to the caller's loop and must not be used on this one: a client with open connections."""

held_up: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("held_up", default=None)
"""Inside a coroutine here: the event loop that stands still meanwhile, because a sync caller waits inside it.

He must not wait for anything that is held by what goes on only on that loop."""


def standing() -> asyncio.AbstractEventLoop | None:
    """The event loop that a sync call made here and now holds up, or that is held up already."""
    return asyncio._get_running_loop() or held_up.get()


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

    @property
    def here(self) -> bool:
        """Whether this is the loop's own thread."""
        return threading.current_thread() is self._thread

    def submit(
        self,
        coroutine: Coroutine[Any, Any, T],
        awaited_by: Caller | None = None,
        holding_up: asyncio.AbstractEventLoop | None = None,
    ) -> concurrent.futures.Future[T]:
        """Start a coroutine here, from any thread; cancelling the future cancels it. LoopError once stopped.

        It runs in a copy of the context of whoever calls this, and finds the other two in `caller` and `held_up`.
        """
        if not self.alive:
            coroutine.close()
            raise LoopError("the private event loop has ended, because Python is leaving")
        tokens = caller.set(awaited_by), held_up.set(holding_up)
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        finally:
            caller.reset(tokens[0])
            held_up.reset(tokens[1])

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine here and wait; Ctrl-C cancels it. LoopError on the loop's own thread: it would deadlock."""
        self.refuse_own_thread(coroutine)
        future = self.submit(coroutine, holding_up=standing())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def refuse_own_thread(self, coroutine: Coroutine[Any, Any, Any] | None = None) -> None:
        """Raise LoopError if this is the loop's own thread, closing the coroutine that cannot run."""
        if self.here:
            if coroutine is not None:
                coroutine.close()
            raise LoopError("the sync API was called on the private event loop, inside a backend: await arank instead")

    async def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine here and await it from another loop (or this one); cancelling the caller cancels it."""
        here = Caller(asyncio.get_running_loop())
        try:
            return await asyncio.wrap_future(self.submit(coroutine, self.outermost(here), held_up.get()))
        except asyncio.CancelledError:
            here.gone = True
            raise

    def outermost(self, here: Caller) -> Caller | None:
        """Who awaits in the end: inside a backend, on this very loop, it is still the caller outside, if he awaits."""
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
_leaving = False


def private_loop() -> Loop:
    """The loop of this process, started on first use; once Python is leaving, one that refuses."""
    global _current
    with _lock:
        if _current is None or not (_current.alive or _leaving):
            _current = Loop()
        return _current


def _forget() -> None:
    """In a forked child: the thread did not come along, and the lock may have been held."""
    global _lock, _current
    _lock = threading.Lock()
    _current = None


@atexit.register
def _leave() -> None:
    global _leaving
    _leaving = True
    if _current is not None:
        _current.stop()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget)
