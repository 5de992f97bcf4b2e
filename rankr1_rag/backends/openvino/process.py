"""The child process of a model, seen from ours: questions go in, answers come out, and it may die.

It is a process because the runtime's `step()` holds the GIL (it would freeze every event loop here), because only one
thread may use the runtime at all, and because a crash of the runtime must not end this process. It runs `worker`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from pathlib import Path

from rankr1_rag.backends.local_model import ModelWorker, log
from rankr1_rag.errors import BackendError, BackendUnavailable

_START = """\
import sys
sys.path[:] = {path!r}
sys.modules["openvino_telemetry"] = None  # it writes into the home folder and looks up a host
from rankr1_rag.backends.openvino.worker import main
main({fd})"""


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """The arguments of a pipeline; `context` is prompt and completion together, `threads` None the runtime's choice.

    `adapter` is merged into the weights at `path` before.
    """

    path: Path
    adapter: Path | None
    context: int
    cache_tokens: int
    max_batch: int
    threads: int | None
    device: str


class ModelProcess(ModelWorker):
    """Its first question is "load"; the answer is None, or an error that ends it. What it logs is logged here."""

    def __init__(self, settings: PipelineSettings) -> None:
        super().__init__()
        self._pipe, theirs = Pipe()
        code = _START.format(path=sys.path, fd=theirs.fileno())
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        theirs.close()
        for work in (self._write, self._read):
            threading.Thread(target=work, name="rankr1-openvino", daemon=True).start()
        self.ask("load", settings).add_done_callback(self._check_loaded)

    def stop(self, reason: str) -> None:
        """End the process now."""
        super().stop(reason)
        self.process.kill()

    def join(self, seconds: float | None = None) -> None:
        """Wait until the process is gone."""
        self.process.wait(seconds)

    def forget(self) -> None:
        """In the child of a fork: let go of the pipe too, or the model's process would outlive the parent."""
        super().forget()
        self._pipe.close()
        self.process.returncode = 0

    def _write(self) -> None:
        """Send the questions. Sending may wait for a step to end, so those who ask must not do it themselves."""
        with suppress(OSError):  # it died, which the reader reports
            for message in iter(self.inbox.get, None):
                self._pipe.send(message)

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                number, outcome = self._pipe.recv()
                if number is None:
                    log.log(*outcome)
                else:
                    self.answer(number, outcome)
        code = self.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self.end(BackendUnavailable(f"the process of the model died ({how}): ask again, and it is started again"))
        self._pipe.close()

    def _check_loaded(self, loaded: Future[None]) -> None:
        if isinstance(error := loaded.exception(), BackendError):
            self.end(error)
