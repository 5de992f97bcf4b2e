"""Many coroutines on the private loop, fed from an iterable: lazily, a bounded number open, in order of completion.

`open` means started and not yet handed over: no more than that is ever held.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import queue
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from rankr1_rag.concurrency.event_loop import Caller, blocked_loop, private_loop, running_or_blocked_loop
from rankr1_rag.errors import LoopError

In = TypeVar("In")
Out = TypeVar("Out")
Work = Callable[[In], Coroutine[Any, Any, Out]]
"""Makes the coroutine for an item; called where the items are read."""
Opened = dict[int, concurrent.futures.Future[Out]]


def each(work: Work[In, Out], items: Iterable[In], most: int) -> Iterator[tuple[int, Out]]:
    """`(index, result)` of each item as it completes, at most `most` open.

    `items` is read in the caller's thread, between results, so that a slow source delays complete results. An error of
    `items` is raised after all open results.
    """
    loop, pid = private_loop(), os.getpid()
    loop.refuse_own_thread()
    source, broken, ended = enumerate(items), None, False
    finished: queue.SimpleQueue[int] = queue.SimpleQueue()
    opened: Opened[Out] = {}
    try:
        while True:
            while not ended and len(opened) < most and finished.empty():
                try:
                    index, item = next(source)
                except StopIteration:
                    ended = True
                except Exception as error:
                    broken, ended = error, True
                else:
                    # the caller may be in another place than for the last item
                    opened[index] = loop.submit(work(item), blocks=running_or_blocked_loop())
                    opened[index].add_done_callback(lambda _, index=index: finished.put(index))  # type: ignore[misc]
            if not opened:
                break
            index = finished.get()
            yield index, opened.pop(index).result()
            refuse_other_process(pid)
    finally:
        cancel(opened, pid)
    if broken is not None:
        raise broken


def live(work: Work[In, Out], items: Iterable[In], most: int) -> Iterator[tuple[int, Out]]:
    """`each` for items that arrive over time, from a pipe or a queue: they are read in a thread of their own."""
    loop, pid, blocks = private_loop(), os.getpid(), running_or_blocked_loop()
    loop.refuse_own_thread()
    finished: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    opened: Opened[Out] = {}
    free, left, broken = threading.Semaphore(most), threading.Event(), list[Exception]()

    def feed() -> None:
        try:
            free.acquire()
            for index, item in enumerate(items):
                if left.is_set():
                    return
                opened[index] = loop.submit(work(item), blocks=blocks)
                opened[index].add_done_callback(lambda _, index=index: finished.put(index))  # type: ignore[misc]
                free.acquire()
        except Exception as error:
            broken.append(error)
        finally:
            finished.put(None)

    threading.Thread(target=feed, name="rankr1-items", daemon=True).start()
    feeding = True
    try:
        while feeding or opened:
            if (index := finished.get()) is None:
                feeding = False
                continue
            result = opened.pop(index).result()
            free.release()
            yield index, result
            refuse_other_process(pid)
    finally:
        left.set()
        free.release()
        cancel(opened, pid)
    if broken:
        raise broken[0]


async def aeach(
    work: Work[In, Out], items: Iterable[In] | AsyncIterable[In], most: int
) -> AsyncIterator[tuple[int, Out]]:
    """`each` on the running event loop, from a plain or an async iterable; an async one may wait."""
    loop, pid = asyncio.get_running_loop(), os.getpid()
    finished: asyncio.Queue[int | None] = asyncio.Queue()
    opened: Opened[Out] = {}
    free, here = asyncio.Semaphore(most), Caller(loop)

    def report(index: int) -> None:
        with suppress(RuntimeError):  # the caller's loop may be closed by now
            loop.call_soon_threadsafe(finished.put_nowait, index)

    async def source() -> AsyncIterator[In]:
        if isinstance(items, AsyncIterable):
            async for item in items:
                yield item
        else:
            for item in items:
                yield item

    async def feed() -> None:
        index = 0
        try:
            await free.acquire()
            async for item in source():
                opened[index] = private_loop().submit(work(item), private_loop().root_caller(here), blocked_loop.get())
                opened[index].add_done_callback(lambda _, index=index: report(index))  # type: ignore[misc]
                index += 1
                await free.acquire()
        finally:
            finished.put_nowait(None)

    feeder, feeding = asyncio.create_task(feed()), True
    try:
        while feeding or opened:
            if (index := await finished.get()) is None:
                feeding = False
                continue
            result = opened.pop(index).result()
            free.release()
            yield index, result
        await feeder
    finally:
        here.cancelled = True
        feeder.cancel()
        cancel(opened, pid)


def refuse_other_process(pid: int) -> None:
    """LoopError in any process but this one."""
    if os.getpid() != pid:
        raise LoopError("these rankings belong to the process that forked this one: start again in this process")


def cancel(opened: Opened[Any], pid: int) -> None:
    """Cancel what is open, if it belongs to this process."""
    if os.getpid() == pid:
        for future in list(opened.values()):
            future.cancel()
