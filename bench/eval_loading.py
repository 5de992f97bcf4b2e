"""What it takes to load the multi-hop samples and to retrieve from their pooled corpus: seconds and memory.

    python -m bench.eval_loading ../shared/data > bench/eval_loading.md

Each figure is of a process of its own. Knows the loaders and BM25; asks no model.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

FILES = {
    "hotpotqa": "hotpotqa/dev_distractor_sample.json",
    "2wikimultihopqa": "2wikimultihopqa/dev_sample.json",
    "musique": "musique/musique_ans_v1.0_dev_sample.jsonl",
}
HEAD = """# Loading and first stage

Made by `python -m bench.eval_loading ../shared/data > bench/eval_loading.md`: all questions of the samples, their
paragraphs pooled into one corpus, BM25 top 20 of every question; a process of its own each time, its imports included.

| run | questions | passages | seconds | peak memory, MB |
|---|---|---|---|---|"""


def once(folder: Path) -> None:
    """One measurement, printed as a row without its number."""
    started = time.perf_counter()
    from rankr1_eval.data import load
    from rankr1_eval.retrieval.bm25 import bm25
    from rankr1_eval.types import pooled

    questions = [question for name, file in FILES.items() for question in load(name, folder / file)]
    corpus = pooled(questions)
    found = bm25(corpus, [question.query for question in questions], 20)
    assert len(found) == len(questions)
    seconds = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(questions):,} | {len(corpus):,} | {seconds:.1f} | {memory:,.0f} |")


def main() -> None:
    folder = Path(sys.argv[1])
    if "--once" in sys.argv:
        once(folder)
        return
    print(HEAD)
    for run in range(1, 4):
        asked = [sys.executable, "-m", "bench.eval_loading", str(folder), "--once"]
        print(f"| {run} | {subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()}")


if __name__ == "__main__":
    main()
