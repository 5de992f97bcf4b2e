"""The processes that vLLM spawns: they end with ours, however it ends, and a script must be guarded against them.

A small process of its own waits at a pipe whose other end only we hold. When that breaks without a word, it kills what
carries our mark in its environment: vLLM's processes inherit it, those of a start that is not finished too. Linux only,
as vLLM is; elsewhere nothing is watched.
"""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
from uuid import uuid4

METHOD = "VLLM_WORKER_MULTIPROC_METHOD"
"""The environment variable for how vLLM starts processes."""


def refuse_unguarded() -> None:
    """RuntimeError in a script's unguarded top level: the processes that are spawned would run it again, and fail."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if file is None or os.environ.get(METHOD, "spawn") != "spawn":
        return
    if getattr(getattr(main, "__spec__", None), "name", "").endswith(".__main__"):
        return  # `python -m package`: multiprocessing leaves that alone
    frame = sys._getframe()
    while frame is not None and not (frame.f_code.co_name == "<module>" and frame.f_globals is main.__dict__):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None or Path(file).suffix != ".py":
        return
    with suppress(OSError, SyntaxError):
        for node in ast.parse(Path(file).read_bytes()).body:
            around = node.lineno <= frame.f_lineno <= (node.end_lineno or 0)
            names = ast.walk(node.test) if around and isinstance(node, ast.If) else ()
            if any(isinstance(name, ast.Name) and name.id == "__name__" for name in names):
                return
        raise RuntimeError(
            f"vLLM computes in processes that it spawns, and each of them runs {file} again from its beginning: put "
            'what it does into a function, and call that under `if __name__ == "__main__":`'
        )


_NAME = "RANKR1_ENGINE"

_WATCHER = """
import os, sys
if not sys.stdin.buffer.read(1):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = open(f"/proc/{pid}/environ", "rb").read()
            command = open(f"/proc/{pid}/cmdline", "rb").read()
            if sys.argv[1].encode() in environment and (b"VLLM" in command or b"multiprocessing" in command):
                os.kill(int(pid), 9)
        except OSError:
            pass
"""


class ProcessWatcher:
    """Begins at once and lasts until `over`. `mark` is what the environment of watched processes holds."""

    def __init__(self) -> None:
        self.mark = {_NAME: uuid4().hex}
        self._process: subprocess.Popen[bytes] | None = None
        if Path("/proc/self/environ").exists():
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _WATCHER, f"{_NAME}={self.mark[_NAME]}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is not for it
            )

    def over(self) -> None:
        """End the watch: the processes have ended in good order."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.write(b".")
                self._process.stdin.close()
            self._process.wait()

    def forget(self) -> None:
        """In the child of a fork: let go of the pipe, or the parent's death would go unnoticed while this lives."""
        if self._process is not None and self._process.stdin is not None:
            os.close(self._process.stdin.fileno())
            self._process.returncode = 0


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started meanwhile do not hear Ctrl-C, which a terminal sends to all: they are ended in good order."""
    resource_tracker.ensure_running()  # its start would undo this
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
