"""The running batch: what requests join and leave while it is computed.

`ContinuousBatchingPipeline.step()` holds the GIL and would freeze every other thread; `generate()` releases it, but
takes its prompts all at once. So `generate` is given a prompt of one token, the *heartbeat*, whose streamer is called
once a step: there requests are added to the running batch, finished ones are answered and abandoned ones cancelled.
The heartbeat ends when nothing is left to do. Measured against its rivals in bench/openvino.md.

Knows the pipeline; knows nothing of event loops, and of text only what `openvino_text` prepares. Imports
openvino-genai, so it is itself imported only when a model is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from openvino_genai import (
    ContinuousBatchingPipeline,
    GenerationConfig,
    GenerationStatus,
    SchedulerConfig,
    StreamerBase,
    StreamingStatus,
)

from rankr1_rag.backends.openvino_jobs import HEARTBEATS, Job, Jobs, Settings
from rankr1_rag.backends.openvino_text import Prepared, Text
from rankr1_rag.errors import BackendError, BackendUnavailable

if TYPE_CHECKING:
    from openvino_genai.py_openvino_genai import GenerationHandle

_BLOCK = 32
"""Tokens in one block of the KV cache on a CPU."""


def load(settings: Settings) -> tuple[ContinuousBatchingPipeline, Text]:
    """The pipeline with a cache of `cache_tokens`, and its tokenizer."""
    scheduler = SchedulerConfig()
    scheduler.num_kv_blocks = -(-settings.cache_tokens // _BLOCK)
    scheduler.enable_prefix_caching = True
    properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": settings.threads} if settings.threads else {}
    pipeline = ContinuousBatchingPipeline(str(settings.path), scheduler, settings.device, properties)
    return pipeline, Text(pipeline.get_tokenizer(), settings.context)


@dataclass(frozen=True, slots=True)
class _Running:
    job: Job
    prepared: Prepared
    handle: GenerationHandle


class Batch(StreamerBase):  # type: ignore[misc]  # openvino-genai is not typed
    """One heartbeat: from the first request until none is left."""

    _numbers = count(1)  # of requests; the heartbeat is 0

    def __init__(self, pipeline: ContinuousBatchingPipeline, text: Text, jobs: Jobs, settings: Settings) -> None:
        super().__init__()
        self._pipeline = pipeline
        self._text = text
        self._jobs = jobs
        self._max_batch = settings.max_batch
        self._room = settings.cache_tokens - HEARTBEATS
        self._running: list[_Running] = []
        self._next: tuple[Job, Prepared] | None = None
        self._beats = 0

    def run(self) -> None:
        """Compute. Whatever goes wrong, everyone who had joined gets an answer."""
        heart = GenerationConfig(max_new_tokens=HEARTBEATS, ignore_eos=True, apply_chat_template=False)
        try:
            self._pipeline.generate([self._text.encode("a").input_ids], [heart], self)
            self._settle()
        except Exception as error:
            self._abandon(BackendError(f"openvino-genai failed in a batch: {error}"))
        self._abandon(BackendUnavailable("openvino-genai left a request uncomputed: ask again"))
        while self._pipeline.has_non_finished_requests():  # all cancelled: a step drops them
            self._pipeline.step()

    def write(self, token: int | list[int]) -> StreamingStatus:
        """Called after every step, in a thread of the runtime's own: no exception may leave it."""
        self._beats += 1
        try:
            self._settle()
            self._join()
        except Exception as error:
            self._abandon(BackendError(f"openvino-genai failed in a batch: {error}"))
        if self._jobs.closed_because:
            self._abandon(BackendError(self._jobs.closed_because))
        return StreamingStatus.RUNNING if self._running or self._next else StreamingStatus.STOP

    def end(self) -> None:
        """Nothing was held back."""

    def _settle(self) -> None:
        """Answer what is finished, cancel what nobody waits for any more."""
        running, self._running = self._running, []
        for one in running:
            if one.job.future.cancelled():
                one.handle.cancel()
            elif one.handle.get_status() == GenerationStatus.RUNNING:
                self._running.append(one)
            else:
                self._answer(one)

    def _answer(self, one: _Running) -> None:
        try:
            (output,) = one.handle.read_all()
            one.job.answer(self._text.completion(one.prepared, output))
        except Exception as error:
            one.job.answer(error if isinstance(error, BackendError) else BackendError(f"openvino-genai: {error}"))

    def _join(self) -> None:
        """Let in whoever waits, while there is room.

        In the second half of a heartbeat nobody joins: its last steps may run ahead of this thread, and what is added
        after the last one would stay uncomputed.
        """
        while self._beats < HEARTBEATS // 2 and len(self._running) < self._max_batch:
            self._next = self._next or self._prepare()
            if self._next is None or not self._fits(self._next[1]):
                return
            (job, prepared), self._next = self._next, None
            handle = self._pipeline.add_request(next(self._numbers), prepared.prompt.input_ids, prepared.config)
            self._running.append(_Running(job, prepared, handle))

    def _prepare(self) -> tuple[Job, Prepared] | None:
        """The next job that can be computed."""
        while job := self._jobs.take():
            try:
                return job, self._text.prepare(job.request)
            except Exception as error:
                job.answer(error if isinstance(error, BackendError) else BackendError(f"openvino-genai: {error}"))
        return None

    def _fits(self, prepared: Prepared) -> bool:
        """Whether the cache has room for all of it: then nothing running ever has to be thrown out and begun again."""
        return prepared.most_tokens + sum(one.prepared.most_tokens for one in self._running) <= self._room

    def _abandon(self, error: BackendError) -> None:
        """Cancel everything, and say why."""
        jobs = [one.job for one in self._running]
        for one in self._running:
            one.handle.cancel()
        if self._next:
            jobs.append(self._next[0])
        self._running, self._next = [], None
        for job in jobs:
            job.answer(error)
