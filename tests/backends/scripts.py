"""Scripted models for the tests of backends, and ways to ask them."""

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from rankr1_rag.backends import Backend, Request
from rankr1_rag.types import Completion

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-W", "error", "-c"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
IMPORTS = """
import asyncio, os, sys, threading, time
from rankr1_rag.backends import Request
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import limited, load_balanced, retried, stored
from rankr1_rag.errors import StoreError

def asking(text="which?"):
    return Request([{"role": "user", "content": text}], 8)
"""


class Script:
    """Answers with its name, or repeats the prompt; counts its calls, and how many of them are open.

    Raises its `errors`, one a call, then `error` as long as it is set. A call takes `seconds`.
    """

    def __init__(self, name: str = "", *errors: Exception, error: Exception | None = None, seconds: float = 0) -> None:
        self.name, self.errors, self.error, self.seconds = name, list(errors), error, seconds
        self.now = self.most = self.calls = 0

    async def __call__(self, messages: Sequence[Any]) -> Completion:
        self.calls += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.seconds)
            if error := self.errors.pop(0) if self.errors else self.error:
                raise error
            return Completion(self.name or messages[-1]["content"], 5, 2, 1)
        finally:
            self.now -= 1


def asking(text: str = "which?", **fields: Any) -> Request:
    return Request([{"role": "user", "content": text}], max_tokens=8, **fields)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


async def answers(backend: Backend, requests: Sequence[Request], *, together: bool) -> list[Completion]:
    try:
        jobs = map(backend.complete, requests)
        return await asyncio.gather(*jobs) if together else [await job for job in jobs]
    finally:
        await backend.close()


def ask(backend: Backend, *requests: Request) -> list[Completion]:
    """The completions of these requests, made one after another; the backend is closed."""
    return run(answers(backend, requests or (asking(),), together=False))


def ask_together(backend: Backend, n: int) -> list[str]:
    """The texts of the completions of `n` different requests, made at once; the backend is closed."""
    requests = [asking(str(number)) for number in range(n)]
    return [completion.text for completion in run(answers(backend, requests, together=True))]


def code(script: str) -> str:
    return IMPORTS + textwrap.dedent(script)


def python(script: str, *options: str, errors: str = "") -> str:
    """The output of a script in a process of its own, which must succeed and print nothing but `errors`."""
    command = [*COMMAND[:-1], *options, "-c", code(script)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert errors in done.stderr if errors else done.stderr == ""
    return done.stdout
