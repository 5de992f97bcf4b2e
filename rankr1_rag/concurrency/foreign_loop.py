"""How what belongs to somebody else's pipeline is called: in a thread of its own, or on the event loop of its owner.

Knows `loop.Caller` and that such a loop may end at any time; knows nothing of what is called, a model or a retriever.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from rankr1_rag.concurrency.event_loop import Caller
from rankr1_rag.errors import BackendError

T = TypeVar("T")

_LOOK = 1.0
"""Seconds between looks whether the caller's loop is still there."""


async def in_thread(work: Callable[[], T]) -> T:
    """Call it in a daemon thread of its own: an abandoned request must not keep Python from leaving."""
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            result = context.run(work)
        except StopIteration as error:  # no future can hold one
            _fail(future, RuntimeError(f"what was called raised {error!r}"))
        except BaseException as error:
            _fail(future, error)
        else:
            with suppress(InvalidStateError):  # cancelled meanwhile
                future.set_result(result)

    threading.Thread(target=run, name="rankr1-borrowed", daemon=True).start()
    return await asyncio.wrap_future(future)


async def on_loop(who: Caller, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await it on the caller's loop. BackendError where that was closed, or left by its caller, with this open."""
    result = asyncio.wrap_future(_begun(who, work))
    try:
        while not (await asyncio.wait([result], timeout=_LOOK))[0]:
            if who.loop.is_closed() or (who.cancelled and not who.loop.is_running()):
                raise BackendError("the event loop of the caller ended while its request was open")
        return result.result()
    finally:
        result.cancel()


def _begun(who: Caller, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
    """`asyncio.run_coroutine_threadsafe`, for a loop that is not ours and may end at any time.

    Nothing is begun for a caller who is gone: his loop may be ending, and would destroy it half-way.
    """
    future: Future[T] = Future()
    left = RuntimeError("cancelled on its caller's event loop")

    def begin() -> None:
        if who.cancelled:
            _fail(future, left)
        elif not future.cancelled():
            try:
                task = who.loop.create_task(work())
            except Exception as error:  # a plain function in place of a coroutine function
                _fail(future, error)
                return
            task.add_done_callback(end)
            future.add_done_callback(partial(_abandon, who.loop, task))

    def end(task: asyncio.Task[T]) -> None:
        if task.cancelled():
            _fail(future, left)
        elif (error := task.exception()) is not None:
            _fail(future, error)
        else:
            with suppress(InvalidStateError):
                future.set_result(task.result())

    who.loop.call_soon_threadsafe(begin)
    return future


def _abandon(loop: asyncio.AbstractEventLoop, task: asyncio.Task[T], future: Future[T]) -> None:
    if future.cancelled():
        with suppress(RuntimeError):  # the loop has ended, and the task with it
            loop.call_soon_threadsafe(task.cancel)


def _fail(future: Future[T], error: BaseException) -> None:
    with suppress(InvalidStateError):
        future.set_exception(error)
