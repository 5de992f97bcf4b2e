"""Many coroutines on the private loop, fed from an iterable: lazily, a bounded number open, in order of completion.

`open` means started and not yet handed over: no more than that is ever held. Knows nothing of ranking.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from rankr1_rag.loop import private_loop

In = TypeVar("In")
Out = TypeVar("Out")
Work = Callable[[In], Coroutine[Any, Any, Out]]


def each(work: Work[In, Out], items: Iterable[In], most: int) -> Iterator[tuple[int, Out]]:
    """`(index, result)` of each item as it is done, at most `most` open. An error of `items` waits for what is open."""
    loop = private_loop()
    loop.refuse_own_thread()
    source, broken, ended = enumerate(items), None, False
    finished: queue.SimpleQueue[int] = queue.SimpleQueue()
    opened: dict[int, concurrent.futures.Future[Out]] = {}
    try:
        while True:
            while not ended and len(opened) < most:
                try:
                    index, item = next(source)
                except StopIteration:
                    ended = True
                except Exception as error:
                    broken, ended = error, True
                else:
                    opened[index] = loop.submit(work(item))
                    opened[index].add_done_callback(lambda _, index=index: finished.put(index))  # type: ignore[misc]
            if not opened:
                break
            index = finished.get()
            yield index, opened.pop(index).result()
    finally:
        _cancel(opened)
    if broken is not None:
        raise broken


async def aeach(
    work: Work[In, Out], items: Iterable[In] | AsyncIterable[In], most: int
) -> AsyncIterator[tuple[int, Out]]:
    """`each` on the running event loop, from a plain or an async iterable."""
    loop = asyncio.get_running_loop()
    finished: asyncio.Queue[int | None] = asyncio.Queue()
    opened: dict[int, concurrent.futures.Future[Out]] = {}
    free = asyncio.Semaphore(most)

    def report(index: int, _: concurrent.futures.Future[Out]) -> None:
        with suppress(RuntimeError):  # the caller's loop may be closed by now
            loop.call_soon_threadsafe(finished.put_nowait, index)

    async def feed() -> None:
        source, index = _aiter(items), 0
        try:
            await free.acquire()
            async for item in source:
                opened[index] = private_loop().submit(work(item))
                opened[index].add_done_callback(partial(report, index))
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
        feeder.cancel()
        _cancel(opened)


async def _aiter(items: Iterable[In] | AsyncIterable[In]) -> AsyncIterator[In]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def _cancel(opened: dict[int, concurrent.futures.Future[Out]]) -> None:
    for future in opened.values():
        future.cancel()
