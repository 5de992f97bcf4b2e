"""Which way to share one openvino-genai pipeline among many coroutines? Writes one line of JSON a run.

    python bench/openvino_rivals.py heartbeat    the shipped backend: requests join a running `generate`
    python bench/openvino_rivals.py batches      whatever waits goes into one `generate(list)`, again and again
    python bench/openvino_rivals.py child        a child process that runs add_request / step, over a pipe

Every one gets the same requests: prompts of 700 to 1,500 tokens that share their beginning in groups of six, 48 to 96
tokens to write, arriving over the first ten seconds. Run them in turn, several times: the results are in openvino.md.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from rankr1_rag.backends import Request
from rankr1_rag.backends.openvino import OpenVINO
from rankr1_rag.backends.openvino_batch import load
from rankr1_rag.backends.openvino_jobs import Job, Jobs, Settings
from rankr1_rag.backends.openvino_weights import find

REQUESTS, GROUP, ARRIVALS, BATCH = 48, 6, 10.0, 16
SETTINGS = Settings(find(None), 8_192, 32_768, BATCH, None, "CPU")
WORDS = ["alpha", "river", "music", "table", "seven", "orange", "walk", "history", "France", "water"]


class Rival(Protocol):
    """What shares the pipeline."""

    async def complete(self, request: Request) -> int:
        """Tokens written."""


class Heartbeat:
    """The shipped backend."""

    def __init__(self) -> None:
        self.backend = OpenVINO(max_batch=BATCH)

    async def complete(self, request: Request) -> int:
        return (await self.backend.complete(request)).completion_tokens


class Batches:
    """One thread, one `generate` at a time over everything that waits."""

    def __init__(self) -> None:
        self.jobs = Jobs()
        threading.Thread(target=self.serve, daemon=True).start()

    async def complete(self, request: Request) -> int:
        return (await asyncio.wrap_future(self.jobs.add(request))).completion_tokens

    def serve(self) -> None:
        pipeline, text = load(SETTINGS)
        while self.jobs.wait():
            jobs: list[Job] = []
            while len(jobs) < BATCH and (job := self.jobs.take()):
                jobs.append(job)
            prepared = [text.prepare(job.request) for job in jobs]
            results = pipeline.generate([one.prompt.input_ids for one in prepared], [one.config for one in prepared])
            for job, one, result in zip(jobs, prepared, results, strict=True):
                tokens = len(result.m_generation_ids[0])
                text._tokenizer.decode(result.m_generation_ids[0])
                job.future.set_result(_completion(tokens, one.prompt_tokens))


class Child:
    """A process of its own that steps for ever; a thread here reads its answers."""

    def __init__(self) -> None:
        self.pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        multiprocessing.get_context("spawn").Process(target=serve_child, args=(theirs,), daemon=True).start()
        self.open: dict[int, Future[int]] = {}
        threading.Thread(target=self.read, daemon=True).start()

    async def complete(self, request: Request) -> int:
        number = len(self.open) + 1
        self.open[number] = Future()
        self.pipe.send((number, request))
        return await asyncio.wrap_future(self.open[number])

    def read(self) -> None:
        with suppress(EOFError):
            while True:
                number, _text, tokens = self.pipe.recv()
                self.open[number].set_result(tokens)


def serve_child(pipe: Connection) -> None:
    from openvino_genai import GenerationStatus

    pipeline, text = load(SETTINGS)
    waiting: list[tuple[int, Request]] = []
    running: list[tuple[int, Any]] = []
    while True:
        while pipe.poll(None if not waiting and not running else 0):
            waiting.append(pipe.recv())
        while waiting and len(running) < BATCH:
            number, request = waiting.pop(0)
            one = text.prepare(request)
            running.append((number, pipeline.add_request(number, one.prompt.input_ids, one.config)))
        pipeline.step()
        for number, handle in [one for one in running if one[1].get_status() != GenerationStatus.RUNNING]:
            (output,) = handle.read_all()
            pipe.send((number, text._tokenizer.decode(output.generated_ids), len(output.generated_ids)))
        running = [one for one in running if one[1].get_status() == GenerationStatus.RUNNING]


def _completion(tokens: int, prompt_tokens: int) -> Any:  # noqa: ANN401
    from rankr1_rag.types import Completion

    return Completion("", prompt_tokens, 0, tokens)


def requests() -> list[tuple[float, Request]]:
    """When each arrives, in seconds, and what it asks."""
    dice = random.Random(7)
    begins = [" ".join(dice.choices(WORDS, k=500)) for _ in range(REQUESTS // GROUP)]
    made = []
    for number in range(REQUESTS):
        text = begins[number // GROUP] + " " + " ".join(dice.choices(WORDS, k=dice.randint(100, 900)))
        message = {"role": "user", "content": f"{text} Tell a very long story about all of this."}
        made.append((ARRIVALS * number / REQUESTS, Request([message], dice.randint(48, 96))))
    return made


async def measure(rival: Rival) -> dict[str, float]:
    begin = time.perf_counter()
    await rival.complete(Request([{"role": "user", "content": "Hello"}], 1))
    start_up = time.perf_counter() - begin
    begin, cpu = time.perf_counter(), _cpu()
    waits: list[float] = []

    async def one(at: float, request: Request) -> int:
        await asyncio.sleep(at)
        since = time.perf_counter()
        tokens = await rival.complete(request)
        waits.append(time.perf_counter() - since)
        return tokens

    task = asyncio.gather(*(one(at, request) for at, request in requests()))
    longest, last = 0.0, begin
    while not task.done():
        await asyncio.sleep(0.005)
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    tokens = sum(task.result())
    return {
        "seconds": time.perf_counter() - begin,
        "tokens": tokens,
        "mean_wait_s": sum(waits) / len(waits),
        "longest_freeze_ms": 1_000 * longest,
        "start_up_s": start_up,
        "cpu_s": _cpu() - cpu,
        "memory_mb": _memory(),
    }


def _cpu() -> float:
    """Seconds of this process and its child so far: on a busy machine they tell more than the clock on the wall."""
    children = multiprocessing.active_children()
    ticks = [Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13] for child in children]
    return time.process_time() + sum(int(tick) for pair in ticks for tick in pair) / os.sysconf("SC_CLK_TCK")


def _memory() -> float:
    """Most MB ever held, child included."""
    whole = [Path("/proc/self/status"), *(Path(f"/proc/{one.pid}/status") for one in multiprocessing.active_children())]
    return sum(int(file.read_text().split("VmHWM:")[1].split()[0]) for file in whole) / 1_024


if __name__ == "__main__":
    rivals: dict[str, Callable[[], Rival]] = {"heartbeat": Heartbeat, "batches": Batches, "child": Child}
    result = asyncio.run(measure(rivals[sys.argv[1]]()))
    print(json.dumps({"rival": sys.argv[1], **{key: round(value, 2) for key, value in result.items()}}), flush=True)
