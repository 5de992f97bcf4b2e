"""What is asked of one loaded model: its settings, a job, and the line where jobs wait.

Between the threads that ask and the one that computes. Knows no model, no tokens, no event loop.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from pathlib import Path

from rankr1_rag.backends import Request
from rankr1_rag.errors import BackendError
from rankr1_rag.types import Completion

HEARTBEATS = 2_048
"""Tokens that a batch's heartbeat may write; they take as many places in the cache. See `openvino_batch`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a model is loaded with; `context` is prompt and completion together, `threads` None the runtime's choice."""

    path: Path
    context: int
    cache_tokens: int
    max_batch: int
    threads: int | None
    device: str


@dataclass(eq=False, slots=True)
class Job:
    """A request, and the future of whoever waits for it: cancelling that abandons the request."""

    request: Request
    future: Future[Completion] = field(default_factory=Future)

    def answer(self, outcome: Completion | Exception) -> None:
        """An abandoned job wants no answer."""
        try:
            if isinstance(outcome, Exception):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)
        except InvalidStateError:
            pass


class Jobs:
    """First come, first served, from any thread; but whoever continues an assistant message goes before the others.

    The prompt that it continues has most likely just been computed and lies in the cache: later it would not.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._continuing: deque[Job] = deque()
        self._waiting: deque[Job] = deque()
        self._closed_because = ""

    @property
    def closed_because(self) -> str:
        """Why no more is taken; "" while open."""
        return self._closed_because

    def add(self, request: Request) -> Future[Completion]:
        """BackendError once closed."""
        job = Job(request)
        with self._changed:
            if self._closed_because:
                raise BackendError(self._closed_because)
            continues = bool(request.messages) and request.messages[-1]["role"] == "assistant"
            (self._continuing if continues else self._waiting).append(job)
            self._changed.notify()
        return job.future

    def wait(self) -> bool:
        """Until there is a job (True) or the line is closed (False)."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed_because or self._continuing or self._waiting)
            return not self._closed_because

    def take(self) -> Job | None:
        """The next job that somebody still waits for, if there is one."""
        with self._changed:
            while line := self._continuing or self._waiting:
                job = line.popleft()
                if not job.future.cancelled():
                    return job
            return None

    def close(self, because: str) -> None:
        """Take no more and answer all that wait with an error. The first reason counts."""
        with self._changed:
            self._closed_because = self._closed_because or because
            jobs = [*self._continuing, *self._waiting]
            self._continuing.clear()
            self._waiting.clear()
            self._changed.notify()
        for job in jobs:
            job.answer(BackendError(self._closed_because))
