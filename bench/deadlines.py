"""How late rankings are at their deadlines: random deadlines over a scripted engine with random delays.

Run `python -m bench.deadlines [--queries 1000] [--in-flight 64] > bench/deadlines.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import platform
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from rankr1_rag import Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.types import Message

LEAST, MOST = 0.01, 5.0
DELAY = 0.3
"""Mean seconds of a completion, exponentially distributed."""

SLOTS, CANDIDATES = 64, 20
SETTINGS: dict[str, dict[str, object]] = {
    "answers late": {"size": 5},
    "slow to be cancelled": {"size": 5},
    "votes": {"size": 5, "votes": 3},
    "hops": {"size": 5, "hops": 3},
    "events": {"size": 5},
}


@dataclass(frozen=True)
class Outcome:
    """A query with its deadline, the seconds that it took, and its ranking."""

    deadline: float
    seconds: float
    ranking: Ranking

    @property
    def late(self) -> float:
        return self.seconds - self.deadline if self.ranking.truncated else -math.inf


def reranker(name: str, dice: Random) -> Reranker:
    """A reranker on an engine of 64 slots."""

    async def script(messages: Sequence[Message]) -> str:
        try:
            await asyncio.sleep(dice.expovariate(1 / DELAY))
        except asyncio.CancelledError:
            if name == "slow to be cancelled":
                await asyncio.sleep(1.0)
            raise
        label = dice.choice(re.findall(r"^\[(\d+)\]", messages[-1]["content"], re.MULTILINE))
        return f"<think>it is</think> <answer>[{label}]</answer>"

    settings: dict[str, object] = {"k": 5, "in_flight": 10_000, **SETTINGS[name]}
    return Reranker(Scripted(script, capacity=SLOTS), **settings)  # type: ignore[arg-type]


async def measure(name: str, queries: int, in_flight: int) -> list[Outcome]:
    """All queries, at most `in_flight` at once; LEAST to MOST seconds each, evenly on a scale of logarithms."""
    dice, free = Random(name), asyncio.Semaphore(in_flight)
    texts, ranker = [f"passage {number} of many" for number in range(CANDIDATES)], reranker(name, dice)

    async def one() -> Outcome:
        deadline = LEAST * (MOST / LEAST) ** dice.random()
        follow = (lambda _: None) if name == "events" else None
        async with free:
            begun = time.perf_counter()
            ranking = await ranker.arank("query", texts, deadline=deadline, on_event=follow)
            seconds = time.perf_counter() - begun
        if sorted(ranking.order) != list(range(CANDIDATES)):
            raise SystemExit(f"{name}: candidates are lost: {ranking}")
        return Outcome(deadline, seconds, ranking)

    found = await asyncio.gather(*[one() for _ in range(queries)])
    await ranker.aclose()
    return found


def row(name: str, found: Sequence[Outcome]) -> str:
    late = sorted(1000 * one.late for one in found if one.ranking.truncated)
    at = [f"{late[min(len(late) - 1, int(part * len(late)))]:.1f}" if late else "–" for part in (0.5, 0.99, 1.0)]
    asked = sum(one.ranking.cost.comparisons for one in found)
    over = sum(one > 50 for one in late)
    return f"| {name} | {len(found):,} | {len(late):,} | {asked:,} | {' | '.join(at)} | {over} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=1000, help="queries a setting (default: %(default)s)")
    parser.add_argument("--in-flight", type=int, default=64, help="open queries (default: %(default)s)")
    options = parser.parse_args()
    command = " ".join(["python -m bench.deadlines", *sys.argv[1:], "> bench/deadlines.md"])
    sys.stdout.write(f"""# How late rankings are at their deadlines

Made by `{command}` (Python {platform.python_version()}, {platform.machine()}).

Top 5 of {CANDIDATES} in sets of 5, deadlines of {LEAST:g} to {MOST:g} s, at most {options.in_flight} queries open.
The engine has {SLOTS} slots; its answers take {DELAY:g} s on average, exponentially distributed. Every candidate is in
each ranking once. "Slow to be cancelled": the engine needs another second, which nobody waits for. Milliseconds after
the deadline of the rankings that ended early; all others were complete before. What was loaded is kept from Python's
garbage collector (`gc.freeze()`, as `rankr1 serve` does): going through all of it takes 60 to 130 ms.

| setting | queries | ended early | comparisons | median ms late | 99 % | most | over 50 ms |
|---|---:|---:|---:|---:|---:|---:|---:|
""")
    gc.freeze()
    for name in SETTINGS:
        found = asyncio.run(measure(name, options.queries, options.in_flight))
        sys.stdout.write(row(name, found) + "\n")


if __name__ == "__main__":
    main()
