"""One private event loop in a daemon thread, where every coroutine of this package runs, and values kept for each loop.

So sync callers, notebooks and callers with an event loop of their own all work, and an async engine never sees its loop
change. A forked child starts a loop of its own.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from rankr1_rag.errors import BackendError, LoopError, RankR1Error
from rankr1_rag.redaction import redact, redact_error

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


def as_exception(error: BaseException) -> Exception:
    """The error of code of others, or a RuntimeError in place of one that would end more than the call it comes from.

    SystemExit and KeyboardInterrupt end an event loop, a CancelledError passes for a cancellation by the caller, and
    StopIteration, StopAsyncIteration and GeneratorExit end generators on their way. No future raises a false exception.
    """
    try:
        if isinstance(error, Exception) and not isinstance(error, ENDS) and error:
            return error
        text = f"{type(error).__name__}: {error}"
    except BaseException:  # it has a __str__ or a __bool__ of its own
        text = type(error).__name__
    other = RuntimeError(f"a function or object that was passed in raised {text}")
    other.__cause__ = error
    return other


ENDS = (StopIteration, StopAsyncIteration, concurrent.futures.CancelledError)


def ends_task(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Whether this error ends the task from outside: it is cancelled, its coroutine closed, or Ctrl-C was pressed."""
    if isinstance(error, GeneratorExit):
        return asyncio._get_running_loop() is None or asyncio.current_task() is not task
    if isinstance(error, asyncio.CancelledError):
        return task is None or task.cancelling() > 0
    return may_be_ctrl_c(error)


def raise_backend_error(error: BaseException, model: str, task: asyncio.Task[Any] | None) -> NoReturn:
    """Raise a BackendError in place of an error of a backend that this task awaits; one of our tree is raised as is."""
    if isinstance(error, RankR1Error) or ends_task(error, task):
        raise error
    text = f"the backend {model!r} failed: {type(error).__name__}: {error}"
    if redact(text) != text:
        redact_error(error)
    raise BackendError(text) from error


@contextmanager
def contained() -> Iterator[None]:
    """For code of others in a task of the caller: what it raises is an Exception there, as in `as_exception`."""
    task = asyncio.current_task()
    try:
        yield
    except BaseException as error:
        if ends_task(error, task):
            raise
        raise as_exception(error)  # noqa: B904


def may_be_ctrl_c(error: BaseException) -> bool:
    """Whether it may be a Ctrl-C: Python raises those in the main thread, unless `asyncio.run` takes them."""
    is_main = threading.current_thread() is threading.main_thread()
    if not (is_main and isinstance(error, KeyboardInterrupt)):
        return False
    takes = getattr(signal.getsignal(signal.SIGINT), "func", None)
    return not isinstance(getattr(takes, "__self__", None), asyncio.Runner)


class TaskFuture(Future[T]):
    """The result of a task on the event loop of another thread; cancelling it cancels the task."""

    task: asyncio.Task[Any] | None = None

    def cancel(self) -> bool:
        """Cancel it, once, unless it is done."""
        cancelled, task = super().cancel(), self.task
        if cancelled and task is not None:
            self.task = None
            with suppress(RuntimeError):  # that loop has ended, and the task with it
                task.get_loop().call_soon_threadsafe(task.cancel)
        return cancelled


async def run_into(future: TaskFuture[T], work: Callable[[], Coroutine[Any, Any, T]]) -> None:
    """Await the work and set the future. Whatever it raises is an Exception there, and only there.

    The body of each task that awaits code of others, so that such code ends no event loop and no other task. A task
    that is cancelled before it begins makes no coroutine, which nobody would await.
    """
    future.task = asyncio.current_task()
    try:
        coroutine = work()
        if future.done():  # cancelled before this began
            coroutine.close()
            return
        result = await coroutine
        with suppress(InvalidStateError):  # cancelled meanwhile
            future.set_result(result)
    except BaseException as error:
        fail(future, error)
        if may_be_ctrl_c(error):
            raise
    finally:
        del future  # which may hold an error, whose traceback holds this frame


def fail(future: Future[T], error: BaseException) -> None:
    """Set the error, unless the future was cancelled meanwhile."""
    with suppress(InvalidStateError):
        future.set_exception(as_exception(error))


class Threads(ThreadPoolExecutor):
    """A pool for functions that may raise StopIteration: on Python 3.11 an asyncio future with one is never done."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:  # noqa: ANN401
        """Call it in a thread."""

        def call() -> T:
            try:
                return fn(*args, **kwargs)
            except StopIteration as error:
                raise as_exception(error)  # noqa: B904

        return super().submit(call)


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
    """An event loop that runs in its own daemon thread. If it ends, whatever waits for it gets a LoopError."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(Threads(thread_name_prefix="rankr1"))
        self._open: set[Future[Any]] = set()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="rankr1-loop", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        """Run until `stop`, whatever tasks and callbacks of backends raise: who awaits those gets it."""
        while not self._ended:
            try:
                self._loop.run_forever()
                self._ended = True
            except Exception:  # of the loop itself
                self._ended = True
            except BaseException:  # SystemExit, for example
                continue
        for future in list(self._open):
            fail(future, LoopError(ENDED))
        with suppress(BaseException):
            self._loop.run_until_complete(self._cancel_all())
        self._loop.close()

    async def _cancel_all(self) -> None:
        await asyncio.sleep(0)  # what was only just submitted closes its coroutine
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=1) if tasks else None

    @property
    def alive(self) -> bool:
        """Whether coroutines still run here."""
        return self._thread.is_alive() and not self._ended

    def submit(
        self, coroutine: Coroutine[Any, Any, T], awaited_by: Caller | None = None, blocks: EventLoop | None = None
    ) -> Future[T]:
        """Start a coroutine here, from any thread; cancelling the future cancels it. LoopError once stopped.

        It runs in a copy of the current context, with `caller` and `blocked_loop` set to the other two. Its errors are
        those of `run_into`.
        """
        future: TaskFuture[T] = TaskFuture()
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        tokens, running = (caller.set(awaited_by), blocked_loop.set(blocks)), run_into(future, lambda: coroutine)
        try:
            if self._ended:
                raise LoopError(ENDED)
            self._loop.call_soon_threadsafe(self._loop.create_task, running)
        except RuntimeError:  # a LoopError, or that of a closed loop
            running.close()
            coroutine.close()
            raise LoopError(ENDED) from None
        finally:
            caller.reset(tokens[0])
            blocked_loop.reset(tokens[1])
        return future

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine here and wait; Ctrl-C cancels it. LoopError on the loop's own thread: it would deadlock."""
        future = None
        try:
            future = self.submit(coroutine, blocks=self.blocked_from_here())
            return future.result()
        except BaseException:
            if future is None:
                coroutine.close()
            else:
                future.cancel()
            raise

    def blocked_from_here(self) -> EventLoop | None:
        """The event loop that a sync call from here blocks, or that is blocked already. LoopError if it is this one."""
        running = asyncio._get_running_loop()
        if running is self._loop:
            raise LoopError("the sync API was called on the private event loop, inside a backend: await arank instead")
        return running or blocked_loop.get()

    async def wait(self, coroutine: Coroutine[Any, Any, T], ending: float = ENDING) -> T:
        """Run a coroutine here and await it from another loop (or this one); cancelling the caller cancels it.

        Tasks on the caller's loop that it leaves behind have `ending` seconds to end.
        """
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
                await asyncio.wait(here.tasks, timeout=ending)

    def root_caller(self, here: Caller) -> Caller | None:
        """The outermost caller: for a backend that awaits on this very loop, the one that awaits the backend."""
        return caller.get() if here.loop is self._loop else here

    def stop(self) -> None:
        """End the loop and its thread; what still runs there is cancelled first."""
        self._ended = True
        with suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=2)


ENDED = "the private event loop has ended: a later call starts another one, unless Python is exiting"

_lock = threading.Lock()
_current: Loop | None = None
_exiting = False


def private_loop() -> Loop:
    """The loop of this process, started on first use; once Python is exiting, one that refuses."""
    global _current
    with _lock:
        if _current is None or not (_current.alive or _exiting):
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
