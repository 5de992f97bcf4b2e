"""The process that a model lives in, seen from ours: what is asked goes in, answers come out, and it may die.

A process of its own, because the runtime's `step()` holds the GIL (it would freeze every event loop here), because only
one thread may use the runtime at all, and because what crashes there does not take this process along. Its other end is
`openvino_worker`. Knows threads and pipes; knows nothing of event loops, and of models only the settings.
"""

from __future__ import annotations

import atexit
import logging
import queue
import signal
import subprocess
import sys
import threading
import weakref
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any, Literal

from rankr1_rag.errors import BackendError, BackendUnavailable

What = Literal["load", "complete", "count", "cancel"]
Message = tuple[What, int, Any]
"""What is asked, the number under which the answer comes back, and what about."""

LOADED = 0
"""The number of the first message; an error under it is the model's that cannot be loaded, a text is for the user."""

_log = logging.getLogger("rankr1_rag")

_START = "import sys; sys.path[:] = {path!r}; from rankr1_rag.backends.openvino.worker import main; main({fd})"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a model is loaded with; `context` is prompt and completion together, `threads` None the runtime's choice.

    `adapter` is merged into the weights at `path` before.
    """

    path: Path
    adapter: Path | None
    context: int
    cache_tokens: int
    max_batch: int
    threads: int | None
    device: str


class Process:
    """Lives until `stop`, until it dies, and never longer than Python."""

    def __init__(self, settings: Settings) -> None:
        self._pipe, theirs = Pipe()
        code = _START.format(path=sys.path, fd=theirs.fileno())
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        theirs.close()
        self._lock = threading.Lock()
        self._numbers = count(LOADED)
        self._open: dict[int, Future[Any]] = {}
        self._outbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._over: BackendError | None = None
        self.dead = False
        for work in (self._write, self._read):
            threading.Thread(target=work, name="rankr1-openvino", daemon=True).start()
        self._loaded: Future[str | None] = self.ask("load", settings)
        self._loaded.add_done_callback(self._check_loaded)
        _ALIVE.add(self)

    def ask(self, what: What, about: object) -> Future[Any]:
        """The answer to come; cancelling it withdraws the question. BackendError once this is over."""
        future: Future[Any] = Future()
        with self._lock:
            if self._over is not None:
                raise type(self._over)(str(self._over))
            number = next(self._numbers)
            self._open[number] = future
        self._outbox.put((what, number, about))
        future.add_done_callback(partial(self._withdraw, number))
        return future

    def stop(self, because: str) -> None:
        """End it now; all who wait get a BackendError."""
        self._end(BackendError(because))
        self._process.kill()

    def join(self) -> None:
        """Wait until it has ended."""
        self._process.wait()

    def forget(self) -> None:
        """In the child of a fork: it is the parent's. Let go of its pipe, or it would outlive the parent."""
        self._pipe.close()
        self._process.returncode = 0
        _ALIVE.discard(self)

    def _write(self) -> None:
        """Sending may wait for a step to end: not in the threads of those who ask."""
        with suppress(OSError):  # it died: the reader tells
            for message in iter(self._outbox.get, None):
                self._pipe.send(message)

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                number, outcome = self._pipe.recv()
                with self._lock:
                    future = self._open.pop(number, None)
                if future is not None:
                    _answer(future, outcome)
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self.dead = True
        self._end(BackendUnavailable(f"the process of the model died ({how}): ask again, and it is started anew"))
        self._pipe.close()

    def _check_loaded(self, loaded: Future[str | None]) -> None:
        if loaded.cancelled():
            return
        if isinstance(error := loaded.exception(), BackendError):
            self._end(error)
        elif notice := loaded.result():
            _log.warning("%s", notice)

    def _withdraw(self, number: int, future: Future[Any]) -> None:
        if future.cancelled():
            with self._lock:
                self._open.pop(number, None)
            self._outbox.put(("cancel", number, None))

    def _end(self, error: BackendError) -> None:
        """Take no more and answer all that wait. The first reason counts."""
        with self._lock:
            self._over = self._over or error
            waiting, self._open = list(self._open.values()), {}
        for future in waiting:
            _answer(future, type(self._over)(str(self._over)))
        self._outbox.put(None)


def _answer(future: Future[Any], outcome: object) -> None:
    with suppress(InvalidStateError):  # cancelled meanwhile
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


_ALIVE: weakref.WeakSet[Process] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    for process in list(_ALIVE):
        process.stop("Python is leaving")
        process.join()
