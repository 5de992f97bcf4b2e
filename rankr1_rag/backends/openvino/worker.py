"""The process that a model lives in, from inside: a running batch that requests join and leave at every step.

One thread does everything. Adding a request while a step is computed, from a streamer say, races with the scheduler's
prefix cache and brings the process down, now and then. Knows the pipeline; knows nothing of who asks, and of text only
what `openvino_text` prepares.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openvino_genai import ContinuousBatchingPipeline, GenerationStatus, SchedulerConfig

from rankr1_rag.backends import Request
from rankr1_rag.backends.openvino.process import LOADED, Message, Settings
from rankr1_rag.backends.openvino.text import Prepared, Text
from rankr1_rag.errors import BackendError

if TYPE_CHECKING:
    from openvino_genai.py_openvino_genai import GenerationHandle

_BLOCK = 32
"""Tokens in one block of the KV cache on a CPU."""


def main(fd: int) -> None:
    """Serve until the other end of the pipe is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    pipe: Connection[Any, Any] = Connection(fd)
    try:
        _, number, settings = pipe.recv()
        try:
            with _model(settings) as (path, notice):
                worker = Worker(pipe, settings, path)
        except Exception as error:
            merged = f" with the adapter {settings.adapter}" if settings.adapter else ""
            told = f"openvino-genai cannot load {settings.path}{merged}: {_short(error)}"
            pipe.send((number, error if isinstance(error, BackendError) else BackendError(told)))
            pipe.recv()  # nobody asks any more: wait for the end
            return
        pipe.send((LOADED, notice))
        worker.run()
    except (EOFError, OSError):
        pass
    finally:
        os._exit(0)  # at once: there is nothing to tidy


def _model(settings: Settings) -> AbstractContextManager[tuple[Path, str | None]]:
    """The file to load, to be had until it is loaded, and what the user is to hear of it."""
    if settings.adapter is None:
        return nullcontext((settings.path, None))
    from rankr1_rag.backends.openvino.merged_models import merged

    return merged(settings.path, settings.adapter)


@dataclass(frozen=True, slots=True)
class _Running:
    prepared: Prepared
    handle: GenerationHandle


def _properties(settings: Settings) -> dict[str, Any]:
    """How the runtime computes. It dies of a single thread in 16 bits (SIGFPE, openvino issue 33300): that has 32."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": settings.threads} if settings.threads else {}
    if settings.device == "CPU" and 1 in (settings.threads, cores):
        properties["INFERENCE_PRECISION_HINT"] = "f32"
    return properties


class Worker:
    """First come, first served; but whoever continues an assistant message goes before the others.

    The prompt that it continues has most likely just been computed and lies in the cache: later it would not.
    """

    def __init__(self, pipe: Connection[Any, Any], settings: Settings, path: Path) -> None:
        scheduler = SchedulerConfig()
        scheduler.num_kv_blocks = -(-settings.cache_tokens // _BLOCK)
        scheduler.enable_prefix_caching = True
        self._pipeline = ContinuousBatchingPipeline(str(path), scheduler, settings.device, _properties(settings))
        self._text = Text(self._pipeline.get_tokenizer(), settings.context)
        self._pipe = pipe
        self._settings = settings
        self._continuing: deque[tuple[int, Prepared]] = deque()
        self._waiting: deque[tuple[int, Prepared]] = deque()
        self._running: dict[int, _Running] = {}

    def run(self) -> None:
        """Step for ever; EOFError when nobody is left to ask."""
        while True:
            while self._pipe.poll(None if self._idle else 0):
                self._take(self._pipe.recv())
            self._join()
            if not self._idle:
                self._step()

    @property
    def _idle(self) -> bool:
        waits = self._running or self._continuing or self._waiting
        return not (waits or self._pipeline.has_non_finished_requests())

    def _take(self, message: Message) -> None:
        what, number, about = message
        if what == "cancel":
            self._cancel(number)
            return
        try:
            if what == "count":
                self._pipe.send((number, self._text.count(about)))
            else:
                self._queue(number, about)
        except BackendError as error:
            self._pipe.send((number, error))
        except Exception as error:
            self._pipe.send((number, BackendError(f"openvino-genai: {_short(error)}")))

    def _queue(self, number: int, request: Request) -> None:
        line = self._continuing if request.messages[-1]["role"] == "assistant" else self._waiting
        line.append((number, self._text.prepare(request)))

    def _cancel(self, number: int) -> None:
        if running := self._running.pop(number, None):
            running.handle.cancel()
        for line in (self._continuing, self._waiting):
            for one in [one for one in line if one[0] == number]:
                line.remove(one)

    def _join(self) -> None:
        """Let in whoever waits, while the batch and the cache have room for all that it may come to.

        Then nothing running ever has to be thrown out and begun again.
        """
        taken = sum(one.prepared.most_tokens for one in self._running.values())
        while (line := self._continuing or self._waiting) and len(self._running) < self._settings.max_batch:
            number, prepared = line[0]
            taken += prepared.most_tokens
            if taken > self._settings.cache_tokens:
                return
            line.popleft()
            handle = self._pipeline.add_request(number, prepared.prompt.input_ids, prepared.config)
            self._running[number] = _Running(prepared, handle)

    def _step(self) -> None:
        self._pipeline.step()
        for number, one in list(self._running.items()):
            if one.handle.get_status() != GenerationStatus.RUNNING:
                del self._running[number]
                self._pipe.send((number, self._answer(one)))

    def _answer(self, one: _Running) -> object:
        try:
            (output,) = one.handle.read_all()
            return self._text.completion(one.prepared, output)
        except BackendError as error:
            return error
        except Exception as error:
            return BackendError(f"openvino-genai: {_short(error)}")


def _short(error: Exception) -> str:
    """The last line of a C++ message: what came before it names files of the machine it was built on."""
    return next((line for line in reversed(str(error).splitlines()) if line.strip()), repr(error)).strip()
