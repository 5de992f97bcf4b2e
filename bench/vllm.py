"""What vLLM gives for the way it is asked: as the paper's code asks it, and as this package does.

    python -m bench.vllm MODEL DATA [--queries 43] [--alone 1] [--repetitions 3] [--many 2]

MODEL is a Hugging Face checkpoint, DATA the folder with run.bm25.top100.trec, queries.tsv, passages.jsonl.gz and
qrels.txt of TREC DL 2019. Each measured row is a line of `vllm.jsonl`: an interrupted run goes on where it was. Rows b,
d and e, of all queries, take ten minutes each on two cores, and are measured in the first `--many` repetitions only.
Passages are clipped to 60 tokens, every completion has exactly 128, and a seeded judge answers (`judged`). The prefix
cache is reset before every row.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.judged import Judged, start
from bench.vllm_report import report
from rankr1_rag import Passage, Ranking, Reranker
from rankr1_rag.backends import Request
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.vllm import VLLM
from rankr1_rag.cli.app import app
from rankr1_rag.concurrency.event_loop import private_loop
from rankr1_rag.io.collection import read_passages, read_queries
from rankr1_rag.io.trec import read_qrels, read_run
from rankr1_rag.prompt import FORMATS, clip
from rankr1_rag.selection import Done, heapsort, step

HERE = Path(__file__).parent
K, SIZE, PASSAGE, COMPLETION = 10, 20, 60, 128
SETTINGS: dict[str, Any] = {"k": K, "size": SIZE, "reasoning_tokens": COMPLETION - 16, "passage_tokens": PASSAGE}
FORMAT = FORMATS["rank-r1-v0.1"]


@dataclass(frozen=True)
class Work:
    """Queries with their candidates, from the files of a TREC collection."""

    folder: Path
    items: list[tuple[str, list[Passage]]]
    worth: dict[str, float]


def load(folder: Path, queries: int) -> Work:
    """The first so many queries; a passage is worth its grade, and ties go to the better first stage."""
    texts, run = read_queries(folder / "queries.tsv"), read_run(folder / "run.bm25.top100.trec")
    grades, passages = read_qrels(folder / "qrels.txt"), read_passages(folder / "passages.jsonl.gz")
    items, worth = [], dict[str, float]()
    for query in list(run)[:queries]:
        found = [passages[one.id] for one in run[query]]
        items.append((texts[query], found))
        for rank, one in enumerate(found):
            known = start(FORMAT.line(one))
            worth[known] = max(worth.get(known, 0.0), grades[query].get(one.id, 0) + 1 / (rank + 2))
    return Work(folder, items, worth)


class Rows:
    """The rows of the table, each one way of asking the same engine. `many` and `alone` are numbers of queries."""

    def __init__(self, backend: Judged, work: Work, many: int, alone: int) -> None:
        self.backend, self.work = backend, work
        self.many, self.few = work.items[:many], alone

    @cached_property
    def asked(self) -> list[Request]:
        """What row b asks: the judge answers, so that no model is needed to know it."""
        engine = self.backend
        dry = Judged(
            Scripted(
                lambda messages: "",
                model=engine.model,
                context=engine.context,
                can_continue=engine.can_continue,
                count=lambda text: engine.count(text) or 0,
            ),
            self.work.worth,
        )
        self._reranked(Reranker(dry, **SETTINGS))
        return dry.tally.requests

    def all(self, repetition: int, many: bool) -> Iterator[tuple[str, int, Callable[[], None]]]:
        """Name, number of queries, and what to time; with `many` the rows of all queries too."""
        first = (repetition * self.few) % len(self.many)
        alone = [self.work.items[(first + i) % len(self.many)] for i in range(self.few)]
        yield "a: as published", len(alone), lambda: self.published(alone, repetition)
        if many:
            yield "b: ours, many queries", len(self.many), self.ours
            yield "d: the same prompts at once", len(self.many), self.limit
        for algorithm in ("heapsort", "tournament", "ahead"):
            yield f"c: ours alone, {algorithm}", len(alone), partial(self.alone, alone, algorithm)
        if many:
            yield "e: rankr1 rerank", len(self.many), self.command

    def published(self, items: list[tuple[str, list[Passage]]], seed: int) -> None:
        """One query after another, one comparison at a time, each in a fresh random order."""
        dice = random.Random(seed)
        for query, candidates in items:
            lines = [clip(FORMAT.line(one), PASSAGE, self.backend.count) for one in candidates]
            selection = heapsort(len(lines), K, SIZE)
            state = step(selection)
            while not isinstance(state, Done):
                answers = []
                for members in state:
                    shown = dice.sample(members, len(members))
                    request = Request(FORMAT.messages(query, [lines[p] for p in shown]), COMPLETION)
                    said = private_loop().call(self.backend.complete(request))
                    places = FORMAT.parse(said.text, len(shown))
                    answers.append(tuple(shown[place] for place in places or (0,)))
                state = step(selection, answers)

    def ours(self) -> None:
        """All queries at once."""
        self._reranked(Reranker(self.backend, **SETTINGS))

    def alone(self, items: list[tuple[str, list[Passage]]], algorithm: str) -> None:
        """One query after another, each by itself."""
        reranker = Reranker(self.backend, algorithm=algorithm, **SETTINGS)
        for query, candidates in items:
            reranker.rank(query, candidates)

    def limit(self) -> None:
        """What was asked in row b, without waiting for any answer."""

        async def at_once() -> None:
            await asyncio.gather(*[self.backend.complete(request) for request in self.asked])

        private_loop().call(at_once())

    def command(self) -> None:
        """The command line, on this engine: its own would start in half a minute."""
        with (
            tempfile.TemporaryDirectory() as folder,
            patch("rankr1_rag.connect.connect", lambda *_, **__: self.backend),
        ):
            run = Path(folder, "run")
            wanted = {query for query, _ in self.many}
            lines = (self.work.folder / "run.bm25.top100.trec").read_text().splitlines(keepends=True)
            ids = [id for id, text in read_queries(self.work.folder / "queries.tsv").items() if text in wanted]
            run.write_text("".join(line for line in lines if line.split()[0] in ids))
            options = {"k": K, "size": SIZE, "reasoning-tokens": COMPLETION - 16, "passage-tokens": PASSAGE}
            flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
            files = ["--queries", "queries.tsv", "--passages", "passages.jsonl.gz"]
            files = [str(self.work.folder / one) if one[0] != "-" else one for one in files]
            app(["rerank", "--run", str(run), *files, "--out", f"{folder}/out", *flags], standalone_mode=False)

    def _reranked(self, reranker: Reranker) -> None:
        for _, outcome in reranker.rank_many(self.many):
            assert isinstance(outcome, Ranking), outcome


def measure(backend: Judged, engine: VLLM, rows: Rows, repetitions: int, many: int, out: Path) -> None:
    """Every row, repetition by repetition, appended to `out`; what stands there already is not measured again."""
    done = {(line["row"], line["repetition"]) for line in _lines(out)}
    private_loop().call(engine.complete(Request([{"role": "user", "content": "warm up"}], 8)))
    for repetition in range(repetitions):
        for name, queries, work in rows.all(repetition, repetition < many):
            if (name, repetition) in done:
                continue
            private_loop().call(engine.reset_prefix_cache())
            backend.tally.take()
            begun = time.perf_counter()
            work()
            seconds = time.perf_counter() - begun
            completions = backend.tally.take().completions
            assert {one.completion_tokens for one in completions} == {COMPLETION}
            line = {
                "row": name,
                "repetition": repetition,
                "queries": queries,
                "seconds": round(seconds, 3),
                "comparisons": len(completions),
                "prompt_tokens": sum(one.prompt_tokens for one in completions),
                "cached_tokens": sum(one.cached_tokens for one in completions),
                "completion_tokens": sum(one.completion_tokens for one in completions),
            }
            with out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, file=sys.stderr, flush=True)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--queries", type=int, default=43)
    parser.add_argument("--alone", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--many", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "vllm.jsonl")
    given = parser.parse_args()
    engine = VLLM(
        given.model,
        name="SmolLM2-135M-Instruct",
        context=4096,
        engine={"enforce_eager": True, "block_size": 32},
        sampling={"ignore_eos": True},
    )
    work = load(given.data, given.queries)
    backend = Judged(engine, work.worth)
    try:
        rows = Rows(backend, work, given.queries, given.alone)
        print(f"{len(rows.asked)} prompts in rows b, d and e", file=sys.stderr)
        measure(backend, engine, rows, given.repetitions, given.many, given.out)
    finally:
        private_loop().call(engine.close())
    given.out.with_suffix(".md").write_text(report(_lines(given.out)))


if __name__ == "__main__":
    main()
