"""The life cycle of a model on this machine: start at the first request, restart, close, pickle, fork and exit.

A backend derives from `LocalModel` and says what to start. What it starts is a `ModelWorker`: a process, a thread or an
engine that computes requests.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from typing import Any, Generic, NamedTuple, Self, TypeVar
from weakref import WeakSet, finalize

from rankr1_rag.backends import Request, on_text
from rankr1_rag.errors import BackendError, BackendUnavailable, PromptTooLong
from rankr1_rag.redaction import has_secret
from rankr1_rag.types import Completion

log = logging.getLogger("rankr1_rag")

WorkerMessage = tuple[str, int, Any]
"""The kind of a question ("complete", "cancel", …), its number, under which the answer comes, and its content."""


Listen = Callable[[int, str], object]
"""Called with the number of characters before a piece of text, and the piece."""


class TextPiece(NamedTuple):
    """A piece of a completion that is still being computed."""

    start: int
    text: str


class ModelWorker(ABC):
    """Computes the questions in `inbox` until it has ended; `ended` is the reason, None while it runs.

    It ends by `stop`, by a model that cannot be loaded, or because it is lost: for a reason that may pass. None in the
    inbox says that it has ended.
    """

    def __init__(self) -> None:
        self.ended: BackendError | None = None
        self.inbox: queue.SimpleQueue[WorkerMessage | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._numbers = count()
        self._open: dict[int, Future[Any]] = {}
        self._listening: dict[int, Listen] = {}

    @property
    def lost(self) -> bool:
        """Whether it ended for a reason that may pass, so that another one may be started in its place."""
        return isinstance(self.ended, BackendUnavailable)

    def ask(self, kind: str, content: object, listen: Listen | None = None) -> Future[Any]:
        """The answer to come. Cancelling it withdraws the question. BackendError once the worker has ended.

        `listen` is called with each TextPiece of the answer, in the thread of the worker.
        """
        future: Future[Any] = Future()
        with self._lock:
            self.check()
            number = next(self._numbers)
            self._open[number] = future
            if listen is not None:
                self._listening[number] = listen
        self.inbox.put((kind, number, content))
        future.add_done_callback(partial(self._withdraw, number))
        return future

    def _withdraw(self, number: int, future: Future[Any]) -> None:
        if future.cancelled():
            with self._lock:
                self._open.pop(number, None)
                self._listening.pop(number, None)
            self.inbox.put(("cancel", number, None))

    def is_open(self, number: int) -> bool:
        """Whether this question is neither answered nor withdrawn."""
        return number in self._open

    def check(self) -> None:
        """Raise the reason of the end, if it has ended."""
        if self.ended is not None:
            raise type(self.ended)(str(self.ended))

    def answer(self, number: int, outcome: object) -> None:
        """Answer a question, with an exception or a result; nothing happens where it was withdrawn."""
        if isinstance(outcome, TextPiece):
            with suppress(KeyError, RuntimeError):  # withdrawn; the loop of who listens was closed
                self._listening[number](*outcome)
            return
        with self._lock:
            future = self._open.pop(number, None)
            self._listening.pop(number, None)
        if future is None:
            return
        with suppress(InvalidStateError):  # cancelled meanwhile
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def end(self, reason: BackendError) -> None:
        """Accept no more questions and answer the open ones with the reason. The first reason counts."""
        with self._lock:
            self.ended = self.ended or reason
        for number in list(self._open):
            self.answer(number, type(self.ended)(str(self.ended)))
        self.inbox.put(None)

    def stop(self, reason: str) -> None:
        """End it for a reason that will not pass."""
        self.end(BackendError(reason))

    @abstractmethod
    def join(self, seconds: float | None = None) -> None:
        """Wait until it is gone, and its memory with it."""

    def leave(self) -> None:
        """End it while Python exits. A thread torn away inside a library brings the process down: it gets 10 s."""
        self.stop("Python is leaving")
        self.join(10.0)

    def forget(self) -> None:
        """In the child of a fork, where it is the parent's: let go of it and end nothing."""
        _running.discard(self)


W = TypeVar("W", bound=ModelWorker)


class LocalModel(ABC, Generic[W]):
    """A backend whose worker is started at the first request, and again if it was lost. Pickled, it is its arguments.

    Any number of event loops and threads may share it. The child of a fork starts a worker of its own. A backend that
    is collected, and Python when it exits, end the worker. `model` is its name in the table of checkpoints.
    """

    streams = False
    """Whether its worker takes "stream" for "complete", and then sends a TextPiece now and then."""
    can_continue = True  # the text of a final assistant message is put behind the opened turn
    _again: Callable[[], Any]

    def __new__(cls, *arguments: Any, **named: Any) -> Self:  # noqa: ANN401
        """Keep the arguments, for pickles and copies."""
        made = super().__new__(cls)
        made._again = partial(cls, *arguments, **named)
        return made

    def __init__(self, model: str) -> None:
        self.model = model
        self._closed = False
        self._closing = f"this {type(self).__name__} backend was closed: make a new one"
        self._lock = threading.Lock()
        self._worker: W | None = None
        self._finalizer: finalize[Any, Any] | None = None
        _models.add(self)

    @abstractmethod
    def start(self, lost: W | None) -> W:
        """A new worker, in place of one that was lost."""

    def worker(self) -> W:
        """The worker, started if need be. BackendError once this backend was closed."""
        with self._lock:
            if self._closed:
                raise BackendError(self._closing)
            if self._worker is None or self._worker.lost:
                self._worker = self.start(self._worker)
                _running.add(self._worker)
                if self._finalizer is not None:
                    self._finalizer.detach()
                self._finalizer = finalize(self, self._worker.stop, self._closing)
                self._finalizer.atexit = False
                end_workers_first()
            return self._worker

    async def complete(self, request: Request) -> Completion:
        """Queue the request and await its completion. PromptTooLong, BackendUnavailable, BackendError."""
        heard, loop, worker = on_text.get() if self.streams else None, asyncio.get_running_loop(), self.worker()
        if heard is None:
            future = worker.ask("complete", request)
        else:
            future = worker.ask("stream", request, lambda *piece: loop.call_soon_threadsafe(heard, *piece))
        completion: Completion = await asyncio.wrap_future(future)
        return completion

    async def close(self) -> None:
        """Answer all open requests with a BackendError and end the worker. Safe to call twice."""
        with self._lock:
            self._closed = True
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop(self._closing)
            await asyncio.to_thread(worker.join)

    def forked(self) -> None:
        """In the child of a fork: the worker is the parent's, and any lock may have been held."""
        self._lock = threading.Lock()
        if self._worker is not None:
            self._worker.forget()
            self._worker = None
        if self._finalizer is not None:
            self._finalizer.detach()

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        arguments = getattr(self._again, "keywords", {})
        if has_secret(arguments):
            raise TypeError(
                "an argument of this backend holds a secret, which would be pickled: put it into a variable"
            )
        return self._again, ()


_models: WeakSet[LocalModel[Any]] = WeakSet()
_running: WeakSet[ModelWorker] = WeakSet()


def _forked() -> None:
    for model in list(_models):
        model.forked()


def _leave() -> None:
    for worker in list(_running):
        worker.leave()


def end_workers_first() -> None:
    """Put the end of all workers before everything that was registered until now for the exit of Python."""
    atexit.unregister(_leave)
    atexit.register(_leave)


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forked)


@contextmanager
def logged(work: str) -> Iterator[None]:
    """Log at INFO that this work begins, and how long it took."""
    start = time.monotonic()
    log.info("%s", work)
    yield
    log.info("%s took %.1f s", work, time.monotonic() - start)


def before_stop(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def check_length(prompt_tokens: int, max_tokens: int, context: int | None) -> None:
    """PromptTooLong where prompt and completion together are longer than the context."""
    if context is not None and prompt_tokens + max_tokens > context:
        raise PromptTooLong(
            f"a prompt of {prompt_tokens} tokens and a completion of up to {max_tokens} are longer than the context of "
            f"{context}: show fewer or shorter passages, or lower max_tokens"
        )
