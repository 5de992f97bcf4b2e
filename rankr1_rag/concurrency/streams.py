"""Many coroutines on the private loop, fed from an iterable: lazily, a bounded number open, in order of completion.

`open` means started and not yet handed over: no more than that is ever held. Whatever ends `items` early is raised
after all open results, so that no part looks like the whole; a consumer that stops early closes `items`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import queue
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import aclosing, closing, suppress
from itertools import count
from typing import Any, TypeVar

from rankr1_rag.concurrency.event_loop import (
    ENDING,
    Caller,
    as_exception,
    blocked_loop,
    ends_task,
    may_be_ctrl_c,
    private_loop,
)
from rankr1_rag.errors import LoopError

In = TypeVar("In")
Out = TypeVar("Out")
Work = Callable[[In], Coroutine[Any, Any, Out]]
"""Makes the coroutine for an item; called where the items are read."""
Opened = dict[int, concurrent.futures.Future[Out]]


def each(work: Work[In, Out], items: Iterable[In], most: int) -> Iterator[tuple[int, Out]]:
    """`(index, result)` of each item as it completes, at most `most` open.

    `items` is read in the caller's thread, between results, so that a slow source delays complete results.
    """
    loop, pid = private_loop(), os.getpid()
    loop.blocked_from_here()
    finished: queue.SimpleQueue[int] = queue.SimpleQueue()
    opened: Opened[Out] = {}
    broken: list[BaseException] = []
    reading = read(items, broken)
    try:
        while True:
            while len(opened) < most and finished.empty() and (found := next(reading, None)):
                index, item = found
                # the caller may be in another place than for the last item
                opened[index] = loop.submit(work(item), blocks=loop.blocked_from_here())
                opened[index].add_done_callback(lambda _, index=index: finished.put(index))  # type: ignore[misc]
            if not opened:
                break
            index = finished.get()
            yield index, opened.pop(index).result()
            refuse_other_process(pid)
    except GeneratorExit:  # the consumer stops early
        pass
    finally:
        cancel(opened, pid)
        reading.close()
    if broken:
        raise broken[0]


def live(work: Work[In, Out], items: Iterable[In], most: int) -> Iterator[tuple[int, Out]]:
    """`each` for items that arrive over time, from a pipe or a queue: they are read in a thread of their own."""
    loop, pid = private_loop(), os.getpid()
    blocks = loop.blocked_from_here()
    finished: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    opened: Opened[Out] = {}
    free, left, broken = threading.Semaphore(most), threading.Event(), list[BaseException]()

    def feed() -> None:
        try:
            with closing(read(items, broken)) as reading:
                while free.acquire() and not left.is_set() and (found := next(reading, None)):
                    index, item = found
                    opened[index] = loop.submit(work(item), blocks=blocks)
                    opened[index].add_done_callback(lambda _, index=index: finished.put(index))  # type: ignore[misc]
        except BaseException as error:
            broken.append(error)
        finally:
            finished.put(None)
            if left.is_set():
                cancel(opened, pid)

    feeder, feeding = threading.Thread(target=feed, name="rankr1-items", daemon=True), True
    feeder.start()
    try:
        while feeding or opened:
            if (index := finished.get()) is None:
                feeding = False
                continue
            result = opened.pop(index).result()
            free.release()
            yield index, result
            refuse_other_process(pid)
    except GeneratorExit:  # the consumer stops early
        pass
    finally:
        left.set()
        free.release()
        cancel(opened, pid)
        feeder.join(ENDING)  # it may wait for an item
    if broken:
        raise broken[0]


async def aeach(
    work: Work[In, Out], items: Iterable[In] | AsyncIterable[In], most: int
) -> AsyncIterator[tuple[int, Out]]:
    """`each` on the running event loop, from a plain or an async iterable; an async one may wait."""
    loop, pid = asyncio.get_running_loop(), os.getpid()
    finished: asyncio.Queue[int | None] = asyncio.Queue()
    opened: Opened[Out] = {}
    free, here, broken = asyncio.Semaphore(most), Caller(loop), list[BaseException]()

    def report(index: int) -> None:
        with suppress(RuntimeError):  # the caller's loop may be closed by now
            loop.call_soon_threadsafe(finished.put_nowait, index)

    async def feed() -> None:
        task = asyncio.current_task()
        try:
            async with aclosing(aread(items, broken)) as reading:
                while await free.acquire() and (found := await anext(reading, None)) and not here.cancelled:
                    index, item = found
                    private = private_loop()
                    opened[index] = private.submit(work(item), private.root_caller(here), blocked_loop.get())
                    opened[index].add_done_callback(lambda _, index=index: report(index))  # type: ignore[misc]
        except BaseException as error:
            if ends_task(error, task):
                raise
            broken.append(error)
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
    except GeneratorExit:  # the consumer stops early
        pass
    finally:
        here.cancelled = True
        feeder.cancel()
        cancel(opened, pid)
        await asyncio.wait([feeder], timeout=ENDING)
    if broken:  # an Exception: in a task, SystemExit would end the loop for all of the consumer's others
        raise as_exception(broken[0])


def read(items: Iterable[In], broken: list[BaseException]) -> Generator[tuple[int, In], None, None]:
    """The items with their indexes. What ends them early goes to `broken`; who closes this closes them."""
    source = iter(items)
    for index in count():
        try:
            item = next(source)
        except StopIteration:
            return
        except BaseException as error:
            if may_be_ctrl_c(error):  # it waits for nothing
                raise
            broken.append(error)
            return
        try:
            yield index, item
        except GeneratorExit:
            if callable(close := getattr(source, "close", None)):
                close()
            raise


async def aread(
    items: Iterable[In] | AsyncIterable[In], broken: list[BaseException]
) -> AsyncGenerator[tuple[int, In], None]:
    """`read`, also from an async iterable."""
    if not isinstance(items, AsyncIterable):
        with closing(read(items, broken)) as reading:
            for one in reading:
                yield one
        return
    source, task = aiter(items), asyncio.current_task()
    for index in count():
        try:
            item = await anext(source)
        except StopAsyncIteration:
            return
        except BaseException as error:
            if ends_task(error, task):
                raise
            broken.append(error)
            return
        try:
            yield index, item
        except GeneratorExit:
            if callable(close := getattr(source, "aclose", None)):
                await close()
            raise


def refuse_other_process(pid: int) -> None:
    """LoopError in any process but this one."""
    if os.getpid() != pid:
        raise LoopError("these rankings belong to the process that forked this one: start again in this process")


def cancel(opened: Opened[Any], pid: int) -> None:
    """Cancel what is open, if it belongs to this process."""
    if os.getpid() == pid:
        for future in list(opened.values()):
            future.cancel()
