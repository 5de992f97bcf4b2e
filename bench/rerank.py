"""SmolLM2 untrained on real passages: what it costs and what it does to support recall.

    python -m bench.rerank [HOTPOTQA.json]

The demo's questions, and the first 20 of a HotpotQA file in the official format, its paragraphs pooled; BM25 top 20,
top 5 selected.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench import hotpotqa
from rankr1_rag import Cost, Passage, Ranking, Reranker, demo
from rankr1_rag.backends.openvino import OpenVINO
from rankr1_rag.checkpoints import BASE
from rankr1_rag.demo import BM25, DemoQuestion

K, N = 5, 20
SETTINGS: dict[str, dict[str, object]] = {
    "as it comes": {},
    "no reasoning": {"reasoning_tokens": 0},
    "no reasoning, sets of 5": {"reasoning_tokens": 0, "size": 5},
    "no reasoning, fused with BM25": {"reasoning_tokens": 0, "fusion": 60},
}


def rows(questions: Sequence[DemoQuestion], pool: Sequence[Passage]) -> list[str]:
    """A line of the table for BM25 and for each setting."""
    first_stage = BM25(pool)
    found = [first_stage.search(question.query.text, N) for question in questions]
    lines = [_row("BM25 alone", questions, [list(best) for best in found], Cost(), 0.0, "")]
    for name, settings in SETTINGS.items():
        start = time.perf_counter()
        with Reranker(OpenVINO(BASE), k=K, **settings) as reranker:  # type: ignore[arg-type]
            items = [(question.query, best) for question, best in zip(questions, found, strict=True)]
            results = dict(reranker.rank_many(items))
        seconds = time.perf_counter() - start
        rankings = [one for _, one in sorted(results.items()) if isinstance(one, Ranking)]
        assert len(rankings) == len(questions), results
        cost = sum((one.cost for one in rankings), Cost())
        lines.append(_row(name, questions, [list(one.passages) for one in rankings], cost, seconds, _places(rankings)))
    return lines


def _row(
    name: str, questions: Sequence[DemoQuestion], ranked: list[list[Passage]], cost: Cost, seconds: float, places: str
) -> str:
    recall = sum(q.recall(passages, K) for q, passages in zip(questions, ranked, strict=True)) / len(questions)
    tokens = f"{cost.prompt_tokens:,} + {cost.completion_tokens:,}"
    return (
        f"| {name} | {recall:.3f} | {cost.comparisons} | {cost.forced} | {tokens} | {seconds:.0f} "
        f"| {seconds / max(cost.comparisons, 1):.2f} | {places} |"
    )


def _places(rankings: Sequence[Ranking]) -> str:
    """Which labels were named, the three most common: a model that judges names none much more than another."""
    named = Counter(one.set.index(one.answer[0]) + 1 for ranking in rankings for one in ranking.trace)
    return ", ".join(f"[{label}] {count / named.total():.0%}" for label, count in named.most_common(3))


def report(path: Path) -> str:
    """The tables as Markdown."""
    head = [
        f"| setting | support recall@{K} | comparisons | forced | prompt + completion tokens | seconds | a comparison "
        "| labels named |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines = [
        "# SmolLM2 untrained, on real passages",
        "",
        "Made by `python -m bench.rerank` on two cores, loading the model included. SmolLM2-135M-Instruct is the "
        "embedded default before it was trained to rerank.",
        "",
        f"## The demo: {len(demo.questions())} questions, {len(demo.passages())} passages",
        "",
        *head,
        *rows(demo.questions(), demo.passages()),
    ]
    if path.exists():
        questions, pool = hotpotqa.load(path)
        title = f"## HotpotQA: the first 20 of {len(questions)} questions, {len(pool):,} passages pooled"
        lines += ["", title, "", *head, *rows(questions[:20], pool)]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    shared = Path(os.environ.get("RANKR1_SHARED_DATA", "../shared/data"))
    print(report(Path(sys.argv[1]) if sys.argv[1:] else shared / "hotpotqa" / "dev_distractor_sample.json"))
