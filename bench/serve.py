"""The server under load: its own time a request, memory, late answers, its throughput against that of `rank_many`.

    python -m bench.serve > bench/serve.md
    python -m bench.serve load --clients 20 --requests 200 --delay 0.02      one part, smaller

A scripted engine of 64 slots with random delays; 20 documents a request; each client is a connection of its own. A
refused request (429) is sent again after `Retry-After`, and up to as long again. "Own time" is what a client waits
longer than the queue and the engine took, by the Server-Timing header: parsing, checks, the answer, two event loops,
the network.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SLOTS, DOCUMENTS, TOP_N = 64, 20, 5

JOINING = 50
"""Clients that begin in a second: what 500 at the same moment wait for is the processor alone."""


def serve(delay: float, max_queue: int) -> None:
    """The server, in a process of its own: comparisons take a random time around `delay` seconds."""
    from rankr1_rag import Completion, Reranker
    from rankr1_rag.backends.scripted import Scripted
    from rankr1_rag.server import ServerConfig, serve

    async def judge(messages: Any) -> Completion:
        query = re.search(r"client \d+", messages[-1]["content"])
        try:
            await asyncio.sleep(random.uniform(0.5, 1.5) * delay)
        except asyncio.CancelledError:
            print("cancelled", query and query[0], time.monotonic(), flush=True)
            raise
        return Completion("<think>short</think> <answer>[1]</answer>", prompt_tokens=2_000, completion_tokens=60)

    engine = Reranker(Scripted(judge, capacity=SLOTS))
    serve(engine, ServerConfig(port=0, max_queue=max_queue), lambda line: print(line, flush=True))


class Server:
    """A process that listens; `url` is (host, port)."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        self.host, self.port = "127.0.0.1", 0
        for line in self.process.stdout:
            if found := re.search(r"listening at http://[^:]+:(\d+)", line):
                self.port = int(found[1])
            if "is ready" in line:
                return
        raise RuntimeError("the server did not start")

    @property
    def memory(self) -> float:
        """Resident memory, MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024

    def stop(self) -> float:
        """End it by SIGTERM; the seconds that this took."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)
        return time.monotonic() - start


@dataclass
class Seen:
    """What the clients saw: statuses, and milliseconds of answers in all and of the server's own."""

    statuses: Counter[int] = field(default_factory=Counter)
    whole: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)


async def ask(server: Server, body: bytes, work: list[None], seen: Seen, later: float = 0.0) -> None:
    """A client that begins `later`, in seconds: one request after the other on one connection, while there is work."""
    await asyncio.sleep(later)
    reader, writer = await asyncio.open_connection(server.host, server.port)
    head = (
        f"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    request = head.encode() + b"\r\n\r\n" + body
    while work:
        work.pop()
        while True:
            start = time.perf_counter()
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(re.findall(rb"content-length: (\d+)", answer)[0])
            await reader.readexactly(length)
            spent, status = 1000 * (time.perf_counter() - start), int(answer[9:12])
            seen.statuses[status] += 1
            if status != 429:
                break
            wait = int(re.findall(rb"retry-after: (\d+)", answer)[0])
            await asyncio.sleep(random.uniform(wait, 2 * wait))
        assert status == 200, answer
        engine = sum(float(one) for one in re.findall(rb"dur=([\d.]+)", answer))
        seen.whole.append(spent)
        seen.own.append(spent - engine)
    writer.close()


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of the values is."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def load(clients: int, requests: int, delay: float) -> str:
    """The figures of a run with so many clients as rows of Markdown."""
    server = Server(
        sys.executable, "-m", "bench.serve", "serve", "--delay", str(delay), "--max-queue", str(clients // 2)
    )
    documents = [f"passage {i}: " + "a word and another " * 30 for i in range(DOCUMENTS)]
    body = json.dumps({"query": "which passage?", "documents": documents, "top_n": TOP_N}).encode()
    seen, memory = Seen(), [server.memory]

    async def run() -> None:
        work = [None] * requests
        begins = [i / JOINING for i in range(min(clients, requests))]
        asked = asyncio.gather(*(ask(server, body, work, seen, later) for later in begins))
        for part in range(1, 5):
            while len(work) > (4 - part) * requests // 4 and not asked.done():
                await asyncio.sleep(0.1)
            memory.append(server.memory)
        await asked

    start = time.monotonic()
    asyncio.run(run())
    seconds = time.monotonic() - start
    stopped = server.stop()
    own = " / ".join(f"{percentile(seen.own, share):.1f}" for share in (0.5, 0.9, 0.99, 0.999))
    rows = {
        "clients, requests": f"{clients:,}, {requests:,}",
        "answers by status": ", ".join(f"{status}: {n:,}" for status, n in sorted(seen.statuses.items())),
        "requests a second": f"{requests / seconds:.0f}",
        "whole time, median, ms": f"{percentile(seen.whole, 0.5):.0f}",
        "own time, median / p90 / p99 / p99.9, ms": own,
        "memory at the start and after each quarter, MiB": ", ".join(f"{one:.0f}" for one in memory),
        "seconds from SIGTERM to the end": f"{stopped:.1f}",
    }
    return "\n".join(["| figure | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def deadlines(requests: int, delay: float) -> str:
    """How late answers are at random deadlines of 10 ms to 5 s, 50 clients at once, as rows of Markdown."""
    server = Server(sys.executable, "-m", "bench.serve", "serve", "--delay", str(delay), "--max-queue", str(requests))
    documents, late, warned = [f"passage {i}" for i in range(100)], list[float](), 0

    async def client(rng: random.Random, n: int) -> None:
        nonlocal warned
        reader, writer = await asyncio.open_connection(server.host, server.port)
        for _ in range(n):
            limit = 10 ** rng.uniform(-2, 0.7)
            own = {"deadline": limit, "k": 20}
            body = json.dumps({"query": "which?", "documents": documents, "rankr1": own}).encode()
            head = "POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
            start = time.perf_counter()
            writer.write(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            found = json.loads(await reader.readexactly(int(re.findall(rb"content-length: (\d+)", answer)[0])))
            assert answer.startswith(b"HTTP/1.1 200"), answer
            assert sorted(one["index"] for one in found["results"]) == [*range(100)]
            if "warnings" in found["meta"]:
                warned += 1
                late.append(1000 * (time.perf_counter() - start - limit))
        writer.close()

    async def run() -> None:
        await asyncio.gather(*(client(random.Random(seed), requests // 50) for seed in range(50)))

    asyncio.run(run())
    server.stop()
    shown = " / ".join(f"{percentile(late, share):.1f}" for share in (0.5, 0.9, 0.99, 1.0))
    rows = f"| requests, of them ended at their deadline | {requests:,}, {warned:,} |"
    return (
        f"| figure | value |\n|---|---|\n{rows}\n| later than the deadline, median / p90 / p99 / most, ms | {shown} |"
    )


def disconnects(clients: int) -> str:
    """How long comparisons go on whose client left, 64 clients at once, as rows of Markdown."""
    server = Server(sys.executable, "-m", "bench.serve", "serve", "--delay", "60")
    left = dict[str, float]()

    async def client(number: int, places: asyncio.Semaphore) -> None:
        async with places:
            _, writer = await asyncio.open_connection(server.host, server.port)
            body = json.dumps({"query": f"client {number}", "documents": ["a", "b"]}).encode()
            head = "POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
            writer.write(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await asyncio.sleep(random.uniform(0.2, 1.0))
            left[f"client {number}"] = time.monotonic()
            writer.close()

    async def run() -> None:
        places = asyncio.Semaphore(SLOTS)
        await asyncio.gather(*(client(number, places) for number in range(clients)))
        await asyncio.sleep(1.0)

    asyncio.run(run())
    server.process.send_signal(signal.SIGTERM)
    told, _ = server.process.communicate(timeout=60)
    ended = re.findall(r"cancelled (client \d+) ([\d.]+)", told)
    spent = [1000 * (float(at) - left[name]) for name, at in ended]
    shown = " / ".join(f"{percentile(spent, share):.1f}" for share in (0.5, 0.9, 0.99, 1.0))
    rows = f"| clients that left, comparisons cancelled | {clients:,}, {len(spent):,} |"
    return f"| figure | value |\n|---|---|\n{rows}\n| ms from leaving to that, median / p90 / p99 / most | {shown} |"


def embedded(queries: int) -> str:
    """Queries a second of the embedded model: `rank_many`, and the server with as many clients as the engine takes."""
    from rankr1_rag import Reranker, demo

    asked = demo.questions()[:queries]
    found = demo.first_stage(asked, demo.passages())
    with Reranker(k=TOP_N) as reranker:
        reranker.rank("which?", ["one", "two"])
        start, at_once = time.monotonic(), reranker.plan.in_flight
        for _ in reranker.rank_many(zip((one.query for one in asked), found, strict=True)):
            pass
        alone = queries / (time.monotonic() - start)
    server = Server(sys.executable, "-m", "rankr1_rag", "serve", "--port", "0", "--k", str(TOP_N))
    bodies = [
        json.dumps(
            {"query": one.query.text, "documents": [{"title": p.title, "text": p.text} for p in passages]}
        ).encode()
        for one, passages in zip(asked, found, strict=True)
    ]

    async def run() -> None:
        places = asyncio.Semaphore(at_once)

        async def one(body: bytes) -> None:
            async with places:
                await ask(server, body, [None], Seen())

        await asyncio.gather(*map(one, bodies))

    start = time.monotonic()
    asyncio.run(run())
    served = queries / (time.monotonic() - start)
    server.stop()
    rows = f"| `rank_many` | {alone:.3f} |\n| through HTTP | {served:.3f} ({served / alone:.2f} of it) |"
    return f"| the embedded model, {queries} queries of 20 | queries a second |\n|---|---|\n{rows}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "part", nargs="?", default="all", choices=["all", "serve", "load", "deadlines", "disconnects", "embedded"]
    )
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--delay", type=float, default=0.1)
    parser.add_argument("--max-queue", type=int, default=256)
    parser.add_argument("--queries", type=int, default=15)
    given = parser.parse_args()
    if given.part == "serve":
        serve(given.delay, given.max_queue)
        sys.exit()
    if given.part == "all":
        print("# The server under load\n\nMade by `python -m bench.serve`.\n")
    if given.part in ("all", "load"):
        print(load(given.clients, given.requests, given.delay))
    if given.part in ("all", "deadlines"):
        print("\n" + deadlines(min(given.requests, 1_000), 5 * given.delay))
    if given.part in ("all", "disconnects"):
        print("\n" + disconnects(2 * given.clients))
    if given.part in ("all", "embedded"):
        print("\n" + embedded(given.queries))
