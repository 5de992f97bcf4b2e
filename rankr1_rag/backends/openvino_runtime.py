"""One loaded model and the thread that drives it.

Loading begins with the object and happens in its thread, where openvino-genai releases the GIL (`Tokenizer(…)` by
itself would hold it for 2 s). Knows threads; knows nothing of event loops.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING

from rankr1_rag.backends.openvino_jobs import Jobs, Settings
from rankr1_rag.errors import BackendError

if TYPE_CHECKING:
    from rankr1_rag.backends.openvino_text import Text

_CLOSED = "this OpenVINO backend was closed: make a new one"


class Runtime:
    """Lives until `stop`, and never longer than Python."""

    def __init__(self, settings: Settings) -> None:
        self.jobs = Jobs()
        self._pid = os.getpid()
        self._settings = settings
        self._text: Future[Text] = Future()
        self._thread = threading.Thread(target=self._serve, name="rankr1-openvino", daemon=True)
        self._thread.start()
        _ALIVE.add(self)

    def text(self) -> Text:
        """The tokenizer; the first call waits until the model is loaded. BackendError where it cannot be."""
        return self._text.result()

    def stop(self) -> None:
        """Answer everyone with an error and let the thread end, after the step it is in; does not wait for that."""
        if self._pid == os.getpid():  # a fork leaves the locks as they were, for ever
            self.jobs.close(_CLOSED)

    def join(self) -> None:
        """Stop, and wait for it."""
        self.stop()
        if self._pid == os.getpid():
            self._thread.join()

    def _serve(self) -> None:
        try:
            from rankr1_rag.backends.openvino_batch import Batch, load

            pipeline, text = load(self._settings)
        except Exception as error:
            problem = f"openvino-genai cannot load {self._settings.path}: {_short(error)}"
            self._text.set_exception(BackendError(problem))
            self.jobs.close(problem)
            return
        self._text.set_result(text)
        while self.jobs.wait():
            Batch(pipeline, text, self.jobs, self._settings).run()


def _short(error: Exception) -> str:
    """The last line of a C++ message: what came before it names files of the machine it was built on."""
    return next((line for line in reversed(str(error).splitlines()) if line.strip()), repr(error)).strip()


_ALIVE: weakref.WeakSet[Runtime] = weakref.WeakSet()


@atexit.register
def _join_all() -> None:
    """A thread that returned from C++ into a finalized Python would bring the process down."""
    for runtime in list(_ALIVE):
        runtime.join()
