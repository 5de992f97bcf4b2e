"""Which constant fuses the embedded checkpoint with BM25: support recall on questions that it was not trained on.

    python -m bench.eval_fusion ../shared/data/train RUNS/data > bench/eval_fusion.md

The questions are those that bench/train_embedded.sh held out (`RUNS/data/*-all-held.jsonl`); the corpus is the
paragraphs of all training questions. The embedded default rests on this table, so no dev question may be in it. Each
question is reranked once in one hop and once in two; fusion is then only arithmetic. Knows rankings and measures.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rankr1_eval.data import load
from rankr1_eval.measures import intervals, supports
from rankr1_eval.retrieve.bm25 import bm25
from rankr1_eval.types import Question, pooled
from rankr1_rag import Passage, Ranking, Reranker
from rankr1_rag.backends.openvino import OpenVINO
from rankr1_rag.fusion import fused
from rankr1_rag.train.examples import read_examples

FILES = {
    "hotpotqa": "hotpotqa_train_500.jsonl",
    "2wikimultihopqa": "2wikimultihopqa_train_500.json",
    "musique": "musique_train_100.json",
}
K, N = 5, 20
CONSTANTS = (None, 0, 1, 2, 3, 5, 10, 20, 60)
"""Of the fusion; None leaves the order as it is."""
CUTOFFS = (2, 5)
HEAD = """# Fusion of the embedded checkpoint with BM25

Made by `python -m bench.eval_fusion ../shared/data/train RUNS/data > bench/eval_fusion.md`: {questions} held-out
training questions, BM25 top {n} of the paragraphs of all training questions, k={k}. Support recall with 95 % bootstrap
intervals, and the paired difference from BM25. Fusion is by reciprocal ranks, 1 / (constant + rank); a great constant
weighs both orders alike.

| order | fusion | comparisons | R@2 | R@5 | ΔR@2 | ΔR@5 |
|---|---|---|---|---|---|---|"""

Item = tuple[Question, tuple[Passage, ...]]


def items(data: Path, examples: Path) -> list[Item]:
    """The held-out questions of all three data sets, each with BM25's best of its own corpus."""
    found: list[Item] = []
    for name, file in FILES.items():
        questions = load(name, data / file)
        corpus = {passage.id: passage for passage in pooled(questions)}
        held = {example.query.id for example in read_examples(examples / f"{name}-all-held.jsonl")}
        asked = [question for question in questions if question.query.id in held]
        run = bm25(list(corpus.values()), [question.query for question in asked], N)
        found += [(one, tuple(corpus[scored.id] for scored in run[one.query.id])) for one in asked]
    return found


def ranked(found: Sequence[Item], hops: int) -> list[Ranking]:
    """Their rankings, unfused."""
    with Reranker(OpenVINO(max_batch=8), k=K, hops=hops, fusion="off") as reranker:
        results = dict(reranker.rank_many((question.query, passages) for question, passages in found))
    rankings = [one for _, one in sorted(results.items()) if isinstance(one, Ranking)]
    assert len(rankings) == len(found), results
    return rankings


def measured(found: Sequence[Item], orders: Sequence[Sequence[int]]) -> Mapping[str, Sequence[float]]:
    """R@2 and R@5 of each question, in order."""
    ids = {
        question.query.id: [passages[position].id for position in order]
        for (question, passages), order in zip(found, orders, strict=True)
    }
    scores = supports.scores(ids, {question.query.id: question.supports for question, _ in found}, CUTOFFS)
    return {f"R@{k}": [scores[f"R@{k}"][question.query.id] for question, _ in found] for k in CUTOFFS}


def row(name: str, asked: str, own: Mapping[str, Sequence[float]], base: Mapping[str, Sequence[float]]) -> str:
    """A line of the table: the means and the paired differences."""
    table = np.array([own[measure] for measure in own]).T
    minus = np.array([base[measure] for measure in own]).T
    means = [f"{one.mean:.3f} ({one.low:.3f} to {one.high:.3f})" for one in intervals.estimates(table)]
    moved = [f"{one.mean:+.3f} ({one.low:+.3f} to {one.high:+.3f})" for one in intervals.differences(table - minus)]
    return f"| {name} | {asked} | {' | '.join([*means, *moved])} |"


def main(data: str, examples: str) -> None:
    """Print the table."""
    found = items(Path(data), Path(examples))
    base = measured(found, [range(N) for _ in found])
    print(HEAD.format(questions=len(found), n=N, k=K))
    print(row("BM25 |", "", base, base), flush=True)
    for hops in (1, 2):
        rankings = ranked(found, hops)
        asked = f"{sum(len(one.trace) for one in rankings) / len(rankings):.1f}"
        for constant in CONSTANTS:
            orders = [one.order if constant is None else fused(one.order, constant) for one in rankings]
            name = f"{hops} hop{'s' * (hops > 1)} | {'off' if constant is None else constant}"
            print(row(name, asked, measured(found, orders), base), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
