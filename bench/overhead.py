"""What the engine itself costs: processor time a comparison, memory over many queries, time to import.

    python -m bench.overhead

A backend that answers at once, 100 candidates a query, top 10, sets of 20. Whole-process figures; each setting in a
process of its own.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time

REPEATS = 5


def comparisons(queries: int, in_flight: int) -> dict[str, float]:
    """Microseconds of processor time a comparison, and the peak of resident memory, MiB."""
    from rankr1_rag import Completion, Passage, Ranking, Reranker
    from rankr1_rag.backends.scripted import Scripted

    said = Completion("<think>short</think> <answer>[1]</answer>", prompt_tokens=2_000, completion_tokens=60)
    reranker = Reranker(Scripted(lambda messages: said), k=10, size=20, in_flight=in_flight)
    passages = [Passage(str(n), "word " * 60 + str(n), title=f"title {n}") for n in range(100)]
    for _ in reranker.rank_many([("warm up", passages)] * 10):
        pass
    asked, start = 0, time.process_time()
    for _, ranking in reranker.rank_many((f"query {n}", passages) for n in range(queries)):
        assert isinstance(ranking, Ranking)
        asked += ranking.cost.comparisons
    spent = time.process_time() - start
    return {
        "us_per_comparison": spent / asked * 1e6,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def importing(statement: str) -> float:
    """Milliseconds that a statement adds to a Python that starts and ends, median over pairs run in turn."""
    added = []
    for _ in range(4 * REPEATS):
        with_it, without = (_seconds([sys.executable, "-c", code]) for code in (statement, "pass"))
        added.append(1e3 * (with_it - without))
    return statistics.median(added)


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - start


def measured(queries: int, in_flight: int) -> dict[str, list[float]]:
    """`comparisons` in processes of their own, again and again."""
    command = [sys.executable, "-m", "bench.overhead", str(queries), str(in_flight)]
    runs = [json.loads(subprocess.check_output(command)) for _ in range(REPEATS)]
    return {name: sorted(run[name] for run in runs) for name in runs[0]}


def report() -> str:
    """The figures as Markdown."""
    rows = ["| queries | open at once | µs a comparison, median (min–max) | peak memory, MiB |", "|---|---|---|---|"]
    for queries, in_flight in ((1_000, 1), (1_000, 64), (1_000, 1_000), (10_000, 64), (10_000, 1_000)):
        runs = measured(queries, in_flight)
        spent, peak = runs["us_per_comparison"], statistics.median(runs["peak_mib"])
        middle = f"{statistics.median(spent):.0f} ({spent[0]:.0f}–{spent[-1]:.0f})"
        rows.append(f"| {queries:,} | {in_flight:,} | {middle} | {peak:.0f} |")
    imports = [
        f"| `{statement}` | {importing(statement):.1f} |"
        for statement in ("import rankr1_rag", "import asyncio", "from rankr1_rag import Reranker")
    ]
    return "\n".join(
        [
            "# What the engine costs",
            "",
            "Made by `python -m bench.overhead`: a backend that answers at once, 100 candidates a query, top 10, "
            f"sets of 20, {REPEATS} processes each. Target: 100 µs of processor time a comparison at 1,000 open "
            "queries, and memory that does not grow with the queries done.",
            "",
            *rows,
            "",
            f"What an import adds to a Python that starts and ends: the median of {4 * REPEATS} pairs run in turn. "
            "Target: 50 ms.",
            "",
            "| statement | ms added |",
            "|---|---|",
            *imports,
            "",
        ]
    )


def main() -> None:
    """Measure one setting, or print the report."""
    if len(sys.argv) == 3:
        print(json.dumps(comparisons(int(sys.argv[1]), int(sys.argv[2]))))
    else:
        print(report())


if __name__ == "__main__":
    main()
