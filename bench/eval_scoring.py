"""What the score of a run takes: seconds and memory, by the number of questions and systems.

    python -m bench.eval_scoring

Made-up orders of 20 candidates and made-up answer strings, all measures, intervals, differences from no rerank, and
both groups. Each setting in a process of its own; whole-process peak of memory.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankr1_eval.scoring import SystemRun
    from rankr1_eval.types import Question

REPEATS = 3
SETTINGS = ((1_000, 1, (5,)), (10_000, 1, (5,)), (10_000, 5, (5,)), (10_000, 5, (2, 3, 5, 10)))


def scored(questions: int, reranked: int, ks: tuple[int, ...]) -> dict[str, float]:
    """Seconds that `score` takes, and the peak of resident memory, MiB."""
    from rankr1_eval.scoring import EvaluatedRun, score

    asked = _questions(questions)
    names = ["none", "gold", *(f"rank-r1:votes={n + 1}" for n in range(reranked)), "oracle", "random"]
    run = EvaluatedRun("made up", "hotpotqa", asked, {}, 20, tuple(_system(name, asked, ks) for name in names))
    start = time.perf_counter()
    score(run)
    return {
        "seconds": time.perf_counter() - start,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _questions(n: int) -> tuple[Question, ...]:
    from rankr1_eval.types import Question
    from rankr1_rag import Query

    return tuple(
        Question(
            Query(f"q{place}", f"Which is the thing number {place}?"),
            (f"The Thing of Number {place}",),
            ("p1", "p2", "p3", "p4")[: 2 + place % 3],
            (),
            ("bridge", "comparison")[place % 2],
            2 + place % 3,
        )
        for place in range(n)
    )


def _system(name: str, asked: Sequence[Question], ks: Sequence[int]) -> SystemRun:
    from rankr1_eval.scoring import SystemRun
    from rankr1_rag.reader import Read
    from rankr1_rag.types import Cost

    chance = random.Random(name)
    passages = [f"p{n}" for n in range(20)]
    ids = [question.query.id for question in asked]
    orders = {id: tuple(chance.sample(passages, 20)) for id in ids}
    answers = [[one.answers[0], one.answers[0].lower() + " or so", "another thing", "yes"] for one in asked]
    reads = {k: {id: Read(chance.choice(said), "") for id, said in zip(ids, answers, strict=True)} for k in ks}
    if name == "gold":
        return SystemRun(name, reads=reads)
    if name in ("oracle", "random"):
        return SystemRun(name, orders)
    return SystemRun(name, orders, reads, costs=dict.fromkeys(ids, Cost(comparisons=20)))


def measured(questions: int, reranked: int, ks: tuple[int, ...]) -> dict[str, list[float]]:
    """`scored` in processes of their own, again and again."""
    command = [sys.executable, "-m", "bench.eval_scoring", json.dumps([questions, reranked, ks])]
    runs = [json.loads(subprocess.check_output(command)) for _ in range(REPEATS)]
    return {name: sorted(run[name] for run in runs) for name in runs[0]}


def report() -> str:
    """The figures as Markdown."""
    systems = [
        "| questions | systems | read at k | seconds, median (min–max) | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for questions, reranked, ks in SETTINGS:
        runs = measured(questions, reranked, ks)
        spent, peak = runs["seconds"], statistics.median(runs["peak_mib"])
        middle = f"{statistics.median(spent):.1f} ({spent[0]:.1f}–{spent[-1]:.1f})"
        systems.append(f"| {questions:,} | {reranked + 4} | {', '.join(map(str, ks))} | {middle} | {peak:.0f} |")
    return "\n".join(
        [
            "# What the score of a run takes",
            "",
            "Made by `python -m bench.eval_scoring > bench/eval_scoring.md`: the systems none, gold, one or five "
            "reranked ones, and oracle and random, which are not read: with one the default of `qa`. Orders of 20, all "
            "measures, 5,000 resamples and 10,000 sign flips, differences from no rerank, groups by type and hops, "
            f"{REPEATS} processes each. Target: 10,000 questions in under 10 seconds.",
            "",
            *systems,
            "",
        ]
    )


def main() -> None:
    """Measure one setting, or print the report."""
    if len(sys.argv) == 2:
        questions, reranked, ks = json.loads(sys.argv[1])
        print(json.dumps(scored(questions, reranked, tuple(ks))))
    else:
        print(report())


if __name__ == "__main__":
    main()
