"""The thread that owns a model: a running batch that requests join and leave at every step.

Knows threads and futures, what is asked and in which order; of tensors and text only whom to ask. transformers has a
continuous batching of its own, which cannot do this: its sampler has no state of a request, so no choices, no seeds and
no alternatives, greedy and sampled requests cannot run together, and a CPU's memory it takes whole.
"""

from __future__ import annotations

import atexit
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Any

from rankr1_rag.backends import Request, hub
from rankr1_rag.backends.transformers import model as models
from rankr1_rag.backends.transformers.batch import Batch, Kept, Writing
from rankr1_rag.backends.transformers.model import Settings
from rankr1_rag.backends.transformers.text import Text
from rankr1_rag.errors import BackendError, BackendUnavailable
from rankr1_rag.types import Completion

_LEAVING = 10.0
"""Seconds that leaving Python waits for a step to end: a thread torn away inside torch brings the process down."""

Asked = tuple[Request, "Future[Completion]"]


class Worker:
    """Lives until `stop`, or until the model cannot be loaded, and never longer than Python.

    First come, first served; but whoever continues an assistant message goes before the others: the prompt that it
    continues has most likely just been computed and is still kept.
    """

    def __init__(self, settings: Settings, text: Text) -> None:
        self._settings = settings
        self._text = text
        self._lock = threading.Lock()
        self._inbox: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self._open: set[Future[Completion]] = set()
        self._over: BackendError | None = None
        self._thread = threading.Thread(target=self._main, name="rankr1-transformers", daemon=True)
        self._thread.start()
        _ALIVE.add(self)

    @property
    def lost(self) -> bool:
        """Whether it ended for a reason that may be gone next time."""
        return isinstance(self._over, BackendUnavailable)

    def ask(self, request: Request) -> Future[Completion]:
        """The completion to come; cancelling it withdraws the request. BackendError once this is over."""
        future: Future[Completion] = Future()
        with self._lock:
            if self._over is not None:
                raise type(self._over)(str(self._over))
            self._open.add(future)
        future.add_done_callback(self._open.discard)
        self._inbox.put((request, future))
        return future

    def stop(self, because: str) -> None:
        """Answer all who wait with a BackendError and end after the step under way."""
        self._end(BackendError(because))

    def join(self, seconds: float | None = None) -> None:
        """Wait until it has ended and the model is freed."""
        self._thread.join(seconds)

    def forget(self) -> None:
        """In the child of a fork: the thread is the parent's, and any lock may have been held."""
        self._lock = threading.Lock()
        self._open = set()
        _ALIVE.discard(self)

    def _end(self, error: BackendError) -> None:
        """Take no more and answer all that wait. The first reason counts."""
        with self._lock:
            self._over = self._over or error
            waiting = list(self._open)
        for future in waiting:
            _answer(future, type(self._over)(str(self._over)))
        self._inbox.put(None)

    def _main(self) -> None:
        try:
            _Running(self._settings, self._text, self._inbox, self._is_over).run()
        except BackendError as error:
            self._end(error)
        except BaseException as error:
            self._end(BackendUnavailable(f"the thread of the model ended: {type(error).__name__}: {error}"))
        with suppress(Exception):  # Python may be leaving
            models.release()

    def _is_over(self) -> bool:
        return self._over is not None


class _Running:
    """The model and what it is at, all used by the worker's thread only."""

    def __init__(
        self, settings: Settings, text: Text, inbox: queue.SimpleQueue[Asked | None], over: Callable[[], bool]
    ) -> None:
        self._text = text
        self._inbox = inbox
        self._over = over
        self._context = hub.context(settings.base, settings.context)
        tokenizer = text.load()
        self._model = models.load(settings)
        self._ends = models.ends(self._model, tokenizer)
        self._most = settings.max_batch
        self._kept = Kept(settings.max_batch)
        self._batch = Batch(self._model)
        self._rows: list[tuple[Future[Completion], Writing]] = []
        self._continuing: deque[tuple[Future[Completion], Writing]] = deque()
        self._waiting: deque[tuple[Future[Completion], Writing]] = deque()

    def run(self) -> None:
        """Step until it is over."""
        while not self._over():
            self._take()
            while (line := self._continuing or self._waiting) and len(self._rows) < self._most and not self._over():
                self._read(*line.popleft())
                self._take()
            if self._rows and not self._over():
                self._step()

    def _take(self) -> None:
        """Take what was asked; wait for it only when there is nothing else to do."""
        with suppress(queue.Empty):
            while True:
                asked = self._inbox.get(block=not (self._rows or self._continuing or self._waiting))
                if asked is None:
                    return
                self._queue(*asked)

    def _queue(self, request: Request, future: Future[Completion]) -> None:
        try:
            writing = Writing(self._text.prepare(request, self._context), self._text, self._ends)
            line = self._continuing if request.messages[-1]["role"] == "assistant" else self._waiting
            line.append((future, writing))
        except Exception as error:
            _answer(future, self._told(error))

    def _read(self, future: Future[Completion], writing: Writing) -> None:
        prompt = writing.prepared.prompt

        def read() -> Any:  # noqa: ANN401
            writing.cached, begun = self._kept.find(prompt)
            return self._batch.read(prompt, begun, lambda: not (future.cancelled() or self._over()))

        try:
            done = None if writing.reason else self._spared(read)
            if done is not None:
                state, scores = done
                writing.take(scores)
                if not writing.reason:
                    self._spared(lambda: self._batch.join(state))
                    self._rows.append((future, writing))
                    return
                self._kept.add(writing.all, state)
            if writing.reason:
                _answer(future, writing.completion())
        except Exception as error:
            _answer(future, self._told(error))

    def _step(self) -> None:
        try:
            self._leave({row for row, (future, _) in enumerate(self._rows) if future.done()})
            if self._rows:
                scores = self._spared(lambda: self._batch.step([writing.tokens[-1] for _, writing in self._rows]))
                best = scores.argmax(-1).tolist()
                for (_, writing), row, token in zip(self._rows, scores, best, strict=True):
                    writing.take(token if writing.plain else row)
                self._leave({row for row, (_, writing) in enumerate(self._rows) if writing.reason})
        except Exception as error:
            told = self._told(error)
            failed, self._rows, self._batch = self._rows, [], Batch(self._model)
            for future, _ in failed:
                _answer(future, type(told)(str(told)))

    def _leave(self, rows: set[int]) -> None:
        """Take rows out of the batch and answer those that are finished."""
        if not rows:
            return
        for row in sorted(rows):
            future, writing = self._rows[row]
            if writing.reason:
                self._kept.add(writing.all, self._spared(partial(self._batch.row, row)))
                _answer(future, writing.completion())
        self._rows = [one for row, one in enumerate(self._rows) if row not in rows]
        self._batch.leave(rows)

    def _spared(self, compute: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Compute; where memory runs out once more, without what is only kept."""
        try:
            return compute()
        except Exception as error:
            if not (len(self._kept) and models.out_of_memory(error)):
                raise
            self._kept.clear()
        models.release()
        return compute()

    def _told(self, error: Exception) -> BackendError:
        if isinstance(error, BackendError):
            return error
        if models.out_of_memory(error):
            self._kept.clear()
            models.release()
            return BackendError(
                f"out of memory with {len(self._rows)} of at most {self._most} requests computed together: lower "
                "max_batch, or show fewer or shorter passages"
            )
        return BackendError(f"transformers: {models.short(error)}")


def _answer(future: Future[Completion], outcome: Completion | Exception) -> None:
    with suppress(InvalidStateError):  # cancelled or ended meanwhile
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


_ALIVE: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    for worker in list(_ALIVE):
        worker.stop("Python is leaving")
    for worker in list(_ALIVE):
        worker.join(_LEAVING)
