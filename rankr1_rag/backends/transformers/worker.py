"""The thread of a model: a running batch that requests join and leave at every step.

transformers has a continuous batching of its own, which cannot do this: its sampler has no state of a request, so no
choices, no seeds and no alternatives, greedy and sampled requests cannot run together, and it takes all of a CPU's
memory.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from rankr1_rag.backends import Request, hub
from rankr1_rag.backends.local_model import ModelWorker
from rankr1_rag.backends.transformers import model as models
from rankr1_rag.backends.transformers.batch import Batch, Kept, Writing
from rankr1_rag.backends.transformers.model import ModelSettings
from rankr1_rag.backends.transformers.text import ModelTokenizer
from rankr1_rag.errors import BackendError, BackendUnavailable


class ModelThread(ModelWorker):
    """Loads the model and computes requests."""

    def __init__(self, settings: ModelSettings, tokenizer: ModelTokenizer) -> None:
        super().__init__()
        self._settings = settings
        self._tokenizer = tokenizer
        self._thread = threading.Thread(target=self._main, name="rankr1-transformers", daemon=True)
        self._thread.start()

    def join(self, seconds: float | None = None) -> None:
        """Wait until the step under way has ended and the model is freed."""
        self._thread.join(seconds)

    def _main(self) -> None:
        try:
            BatchLoop(self, self._settings, self._tokenizer).run()
        except BackendError as error:
            self.end(error)
        except BaseException as error:
            self.end(BackendUnavailable(f"the thread of the model ended: {type(error).__name__}: {error}"))
        with suppress(Exception):  # Python may be leaving
            models.release()


class BatchLoop:
    """First come, first served; but requests that continue an assistant message go before the others.

    The prompt that they continue has most likely just been computed and is still kept.
    """

    def __init__(self, worker: ModelWorker, settings: ModelSettings, text: ModelTokenizer) -> None:
        self._text = text
        self._worker = worker
        self._context = hub.context(settings.base, settings.context)
        tokenizer = text.load()
        self._model = models.load(settings)
        self._ends = models.ends(self._model, tokenizer)
        self._most = settings.max_batch
        self._kept = Kept(settings.max_batch)
        self._batch = Batch(self._model)
        self._rows: list[tuple[int, Writing]] = []
        self._continuing: deque[tuple[int, Writing]] = deque()
        self._waiting: deque[tuple[int, Writing]] = deque()

    def run(self) -> None:
        """Step until the worker has ended."""
        while not self._worker.ended:
            self._receive()
            while (line := self._continuing or self._waiting) and len(self._rows) < self._most:
                self._read(*line.popleft())
                self._receive()
            if self._rows and not self._worker.ended:
                self._step()

    def _receive(self) -> None:
        """Take the new requests; wait for one only when there is nothing else to do."""
        with suppress(queue.Empty):
            while True:
                message = self._worker.inbox.get(block=not (self._rows or self._continuing or self._waiting))
                if message is None:
                    return
                kind, number, request = message
                if kind == "complete":
                    self._enqueue(number, request)

    def _enqueue(self, number: int, request: Request) -> None:
        try:
            writing = Writing(self._text.prepare(request, self._context), self._text, self._ends)
            line = self._continuing if request.messages[-1]["role"] == "assistant" else self._waiting
            line.append((number, writing))
        except Exception as error:
            self._worker.answer(number, self._backend_error(error))

    def _read(self, number: int, writing: Writing) -> None:
        prompt = writing.prepared.prompt

        def read() -> Any:  # noqa: ANN401
            writing.cached, begun = self._kept.find(prompt)
            return self._batch.read(prompt, begun, lambda: self._worker.is_open(number))

        try:
            done = None if writing.reason else self._spared(read)
            if done is not None:
                state, scores = done
                writing.take(scores)
                if not writing.reason:
                    self._spared(lambda: self._batch.join(state))
                    self._rows.append((number, writing))
                    return
                self._kept.add(writing.all, state)
            if writing.reason:
                self._worker.answer(number, writing.completion())
        except Exception as error:
            self._worker.answer(number, self._backend_error(error))

    def _step(self) -> None:
        try:
            self._leave({row for row, (number, _) in enumerate(self._rows) if not self._worker.is_open(number)})
            if self._rows:
                scores = self._spared(lambda: self._batch.step([writing.tokens[-1] for _, writing in self._rows]))
                best = scores.argmax(-1).tolist()
                for (_, writing), row, token in zip(self._rows, scores, best, strict=True):
                    writing.take(token if writing.plain else row)
                self._leave({row for row, (_, writing) in enumerate(self._rows) if writing.reason})
        except Exception as error:
            failure = self._backend_error(error)
            failed, self._rows, self._batch = self._rows, [], Batch(self._model)
            for number, _ in failed:
                self._worker.answer(number, type(failure)(str(failure)))

    def _leave(self, rows: set[int]) -> None:
        """Take rows out of the batch and answer those that are finished."""
        if not rows:
            return
        for row in sorted(rows):
            number, writing = self._rows[row]
            if writing.reason:
                self._kept.add(writing.all, self._spared(partial(self._batch.row, row)))
                self._worker.answer(number, writing.completion())
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

    def _backend_error(self, error: Exception) -> BackendError:
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
