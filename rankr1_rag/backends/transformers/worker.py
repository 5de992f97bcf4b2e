"""The thread of a model: a running batch that requests join and leave at every step.

Micro-batches of `generate()` make 2 to 3 times fewer comparisons a second: see bench/transformers_batching.md. The
continuous batching of transformers itself has no state of a request in its sampler, so no choices, no seeds and no
alternatives; greedy and sampled requests cannot run together, and it takes all of a CPU's memory.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from rankr1_rag.backends import hub
from rankr1_rag.backends.local_model import ModelWorker, logged
from rankr1_rag.backends.transformers import model as models
from rankr1_rag.backends.transformers.decoding import Decoding, PrefixCache, RunningBatch
from rankr1_rag.backends.transformers.model import ModelSettings, ModelTokenizer
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

    def __init__(self, worker: ModelWorker, settings: ModelSettings, tokenizer: ModelTokenizer) -> None:
        self._worker = worker
        self._tokenizer = tokenizer
        self._context = hub.context(settings.base, settings.context)
        loaded = tokenizer.load()
        names = [source.name for source in (settings.base, settings.adapter) if source]
        with logged(f"loading {' with the adapter '.join(names)}"):
            self._model = models.load(settings)
        self._ends = models.ends(self._model, loaded)
        self._max_batch = settings.max_batch
        self._cache = PrefixCache(settings.max_batch)
        self._batch = RunningBatch(self._model)
        self._rows: list[tuple[int, Decoding]] = []
        self._continuing: deque[tuple[int, Decoding]] = deque()
        self._waiting: deque[tuple[int, Decoding]] = deque()

    def run(self) -> None:
        """Step until the worker has ended."""
        while not self._worker.ended:
            self._receive()
            while (line := self._continuing or self._waiting) and len(self._rows) < self._max_batch:
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
                if kind == "cancel":
                    continue
                try:
                    decoding = Decoding(self._tokenizer.prepare(request, self._context), self._tokenizer, self._ends)
                    line = self._continuing if request.messages[-1]["role"] == "assistant" else self._waiting
                    line.append((number, decoding))
                except Exception as error:
                    self._worker.answer(number, self._backend_error(error))

    def _read(self, number: int, decoding: Decoding) -> None:
        """Read a prompt, and let its request join the batch unless its first token ends it."""

        def read() -> Any:  # noqa: ANN401
            decoding.cached, begun = self._cache.find(decoding.prompt)
            return self._batch.read(decoding.prompt, begun, lambda: self._worker.is_open(number))

        try:
            if not decoding.reason:  # else no choice was left
                done = self._with_memory(read)
                if done is None:
                    return
                state, scores = done
                decoding.take(scores)
                if not decoding.reason:
                    self._with_memory(lambda: self._batch.join(state))
                    self._rows.append((number, decoding))
                    return
                self._cache.add([*decoding.prompt, *decoding.tokens], state)
            self._worker.answer(number, decoding.completion())
        except Exception as error:
            self._worker.answer(number, self._backend_error(error))

    def _step(self) -> None:
        try:
            self._remove({row for row, (number, _) in enumerate(self._rows) if not self._worker.is_open(number)})
            if self._rows:
                last = [decoding.tokens[-1] for _, decoding in self._rows]
                scores = self._with_memory(lambda: self._batch.step(last))
                for (_, decoding), row, best in zip(self._rows, scores, scores.argmax(-1).tolist(), strict=True):
                    decoding.take(best if decoding.is_plain else row)
                self._remove({row for row, (_, decoding) in enumerate(self._rows) if decoding.reason})
        except Exception as error:
            failure = self._backend_error(error)
            failed, self._rows, self._batch = self._rows, [], RunningBatch(self._model)
            for number, _ in failed:
                self._worker.answer(number, type(failure)(str(failure)))

    def _remove(self, rows: set[int]) -> None:
        """Take rows out of the batch and answer those that have finished."""
        if not rows:
            return
        for row in sorted(rows):
            number, decoding = self._rows[row]
            if decoding.reason:
                state = self._with_memory(partial(self._batch.row, row))
                self._cache.add([*decoding.prompt, *decoding.tokens], state)
                self._worker.answer(number, decoding.completion())
        self._rows = [one for row, one in enumerate(self._rows) if row not in rows]
        self._batch.leave(rows)

    def _with_memory(self, compute: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Compute; where memory runs out, once more without the kept prompts."""
        try:
            return compute()
        except Exception as error:
            if not (len(self._cache) and models.out_of_memory(error)):
                raise
            self._cache.clear()
        models.release()
        return compute()

    def _backend_error(self, error: Exception) -> BackendError:
        if isinstance(error, BackendError):
            return error
        if models.out_of_memory(error):
            self._cache.clear()
            models.release()
            return BackendError(
                f"out of memory with {len(self._rows)} of at most {self._max_batch} requests computed together: lower "
                "max_batch, or show fewer or shorter passages"
            )
        return BackendError(f"transformers: {models.short(error)}")
