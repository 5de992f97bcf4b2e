"""Which way to share one openvino-genai pipeline among many coroutines? Writes one line of JSON a run.

    python bench/openvino_rivals.py process    the shipped backend: a process that runs add_request and step
    python bench/openvino_rivals.py batches    a thread here: whatever waits goes into one `generate(list)`

Both get the same requests: prompts of 700 to 1,500 tokens that share their beginning in groups of six, 48 to 96 tokens
to write, arriving over the first ten seconds. Run them in turn, several times: the results are in openvino.md.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from rankr1_rag.backends import Request
from rankr1_rag.backends.openvino import OpenVINO
from rankr1_rag.backends.openvino.weights import find

REQUESTS, GROUP, ARRIVALS, BATCH = 48, 6, 10.0, 16
CACHE = 32_768
WORDS = ["alpha", "river", "music", "table", "seven", "orange", "walk", "history", "France", "water"]


class Rival(Protocol):
    """What shares the pipeline."""

    async def complete(self, request: Request) -> int:
        """Tokens written."""


class OneProcess:
    """The shipped backend."""

    def __init__(self) -> None:
        self.backend = OpenVINO(max_batch=BATCH)

    async def complete(self, request: Request) -> int:
        return (await self.backend.complete(request)).completion_tokens


class Batches:
    """One thread here, one `generate` at a time over everything that waits."""

    def __init__(self) -> None:
        self.line: queue.SimpleQueue[tuple[Request, Future[int]]] = queue.SimpleQueue()
        threading.Thread(target=self.serve, daemon=True).start()

    async def complete(self, request: Request) -> int:
        future: Future[int] = Future()
        self.line.put((request, future))
        return await asyncio.wrap_future(future)

    def serve(self) -> None:
        from openvino_genai import ContinuousBatchingPipeline, SchedulerConfig

        from rankr1_rag.backends.openvino.worker import PromptEncoder

        scheduler = SchedulerConfig()
        scheduler.num_kv_blocks = CACHE // 32
        scheduler.enable_prefix_caching = True
        pipeline = ContinuousBatchingPipeline(str(find(None)), scheduler, "CPU", {})
        encoder = PromptEncoder(pipeline.get_tokenizer(), 8_192)
        while True:
            waiting = [self.line.get()]
            while len(waiting) < BATCH and not self.line.empty():
                waiting.append(self.line.get())
            prepared = [encoder.encode(0, request) for request, _ in waiting]
            results = pipeline.generate([one.prompt for one in prepared], [one.config for one in prepared])
            for (_, future), result in zip(waiting, results, strict=True):
                future.set_result(len(result.m_generation_ids[0]))


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


def _processes() -> list[Path]:
    """Where /proc tells about this process and its children."""
    children = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True, check=False).stdout
    return [Path(f"/proc/{pid}") for pid in [str(os.getpid()), *children.split()] if Path(f"/proc/{pid}/stat").exists()]


def _cpu() -> float:
    """Seconds of this process and its children so far: on a busy machine they tell more than the clock on the wall."""
    ticks = [(process / "stat").read_text().rsplit(")", 1)[1].split()[11:13] for process in _processes()]
    return sum(int(tick) for pair in ticks for tick in pair) / os.sysconf("SC_CLK_TCK")


def _memory() -> float:
    """Most MB ever held, children included."""
    held = [(process / "status").read_text().split("VmHWM:") for process in _processes()]
    return sum(int(parts[1].split()[0]) for parts in held if len(parts) > 1) / 1_024


if __name__ == "__main__":
    rivals: dict[str, Callable[[], Rival]] = {"process": OneProcess, "batches": Batches}
    result = asyncio.run(measure(rivals[sys.argv[1]]()))
    print(json.dumps({"rival": sys.argv[1], **{key: round(value, 2) for key, value in result.items()}}), flush=True)
