"""What a ranking of many candidates costs after the model has answered: scores, explanations, page, terminal, files.

    python -m bench.sizes > bench/sizes.md
    python -m bench.sizes FOLDER

All candidates are selected, by a backend that answers at once. With the folder of another checkout, its figures come
from the same run, in processes in turn.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

CASES = ((500, 1), (1_000, 1), (2_000, 1), (1_000, 3), (2_000, 3))
"""Candidates and votes."""


def measured(n: int, votes: int) -> dict[str, float]:
    """Milliseconds of processor time of each step."""
    from rich.console import Console

    from rankr1_rag import Completion, Passage, Query, Ranking, Reranker
    from rankr1_rag.backends.scripted import Scripted
    from rankr1_rag.explain import page, show
    from rankr1_rag.io.collection import parse_object
    from rankr1_rag.io.jsonl import ranking_from_json, ranking_to_json, to_line

    chance, found = random.Random(n), dict[str, float]()

    def answer(_: object) -> Completion:
        text = f"<think>[1] says more than [2]</think> <answer>[{chance.randint(1, 2)}]</answer>"
        return Completion(text, prompt_tokens=2_000, completion_tokens=60)

    passages = [Passage(f"d{number}", "word " * 60 + str(number), f"title {number}") for number in range(n)]
    reranker = Reranker(Scripted(answer), k=None, votes=votes)

    def timed(name: str, step: Callable[[], object]) -> None:
        start = time.process_time()
        step()
        found[name] = 1e3 * (time.process_time() - start)

    ranking = reranker.rank(Query("1", "query"), passages)
    found["comparisons"] = len(ranking.trace)
    line = to_line(ranking_to_json(ranking)).rstrip()

    def fresh() -> Ranking:
        return ranking_from_json(parse_object(line))

    fresh_scores, fresh_all, fresh_page = fresh(), fresh(), fresh()
    timed("scores", lambda: fresh_scores.scores)
    timed("explain all", lambda: [fresh_all.explain(rank) for rank in range(1, n + 1)])
    timed("page", lambda: page(fresh_page))
    timed("terminal", lambda: show(ranking, Console(file=io.StringIO(), width=100)))
    timed("to JSON", lambda: to_line(ranking_to_json(ranking)))
    timed("from JSON", fresh)
    return found


def bomb(path: str) -> dict[str, float]:
    """MiB of resident memory at the peak of reading a gzip of 4.4 MB that holds one line of 1 GB."""
    from rankr1_rag import FileError
    from rankr1_rag.io.jsonl import read_candidates

    with suppress(FileError, MemoryError):
        list(read_candidates(path))
    return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def run(folder: Path, *arguments: str) -> dict[str, float]:
    """The figures of one process that imports the package of that folder."""
    command = [sys.executable, str(Path(__file__).resolve()), "measure", *arguments]
    found: dict[str, float] = json.loads(
        subprocess.check_output(command, env={**os.environ, "PYTHONPATH": str(folder)}, cwd=folder)
    )
    return found


def report(folders: list[Path]) -> str:
    """The figures as Markdown."""
    names = ["this checkout", "before"][: len(folders)]
    lines = [
        "# Many candidates",
        "",
        "Made by `python -m bench.sizes`, see its docstring: milliseconds of processor time, one "
        f"process a line{f'; with two values, {names[0]} / {names[1]}' if names[1:] else ''}. Targets: 50 ms of "
        "scores for 1,000 candidates with votes, 1 s for a page of 2,000 candidates.",
        "",
    ]
    steps = ("comparisons", "scores", "explain all", "page", "terminal", "to JSON", "from JSON")
    lines += [f"| candidates | votes | {' | '.join(steps)} |", "|---" * (2 + len(steps)) + "|"]
    for n, votes in CASES:
        runs = [run(folder, str(n), str(votes)) for folder in folders]
        cells = [" / ".join(f"{one[step]:,.0f}" for one in runs) for step in steps]
        lines.append(f"| {n:,} | {votes} | {' | '.join(cells)} |")
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "bomb.jsonl.gz"
        with gzip.open(path, "wb", compresslevel=1) as out:
            for _ in range(1_000):
                out.write(b"a" * 1_000_000)
        peaks = " / ".join(f"{run(folder, str(path))['peak']:,.0f}" for folder in folders)
    lines += ["", f"Peak memory of reading a gzip of 4.4 MB that holds one line of 1 GB, MiB: {peaks}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(bomb(sys.argv[2]) if len(sys.argv) == 3 else measured(int(sys.argv[2]), int(sys.argv[3]))))
    else:
        print(report([Path(__file__).resolve().parent.parent, *map(Path, sys.argv[1:])]), end="")
