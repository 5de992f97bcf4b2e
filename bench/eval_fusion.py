"""Which constant fuses the embedded checkpoint with BM25: support recall on questions that it was not trained on.

    python -m bench.eval_fusion ../shared/data/train RUNS/data > bench/eval_fusion.md

The questions are those that bench/train_embedded.sh held out (`RUNS/data/*-all-held.jsonl`); the corpus is the
paragraphs of all training questions. The embedded default rests on this table, so no dev question may be in it. Each
question is reranked once in one hop, once in two, and once in two with a second retrieval; fusion is then only
arithmetic. Knows rankings and measures.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rankr1_eval.data import load
from rankr1_eval.measures import answers, intervals
from rankr1_eval.retrieval.bm25 import searching
from rankr1_eval.types import Question, pooled
from rankr1_rag import Passage, Ranking, Reranker
from rankr1_rag.backends.openvino import OpenVINO
from rankr1_rag.scoring import fused
from rankr1_rag.train.data import read_examples

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
training questions, BM25 top {n} of the paragraphs of all training questions, k=5. Support recall with 95 % bootstrap
intervals, and the paired difference from BM25. Fusion is by reciprocal ranks, 1 / (constant + rank), in the result and
in the retrieval that found a passage; a large constant weighs both alike. "No rank there": passages of the second
retrieval count by their rank in the result alone. Seconds: wall time a question, many at once, {batch} prompts a batch.

| order | fusion | comparisons | seconds | R@2 | R@5 | ΔR@2 | ΔR@5 |
|---|---|---|---|---|---|---|---|"""
BATCH = 8


@dataclass(frozen=True)
class Corpus:
    """The held-out questions of a data set, each with BM25's best, and what finds more for a text."""

    asked: tuple[tuple[Question, tuple[Passage, ...]], ...]
    search: Callable[[str], list[Passage]]


Asked = tuple[Question, Ranking, Sequence[int]]
"""A question, its ranking unfused, and the rank of each candidate in the retrieval that found it."""


def corpora(data: Path, examples: Path) -> Iterator[Corpus]:
    """Of each data set."""
    for name, file in FILES.items():
        questions = load(name, data / file)
        corpus = {passage.id: passage for passage in pooled(questions)}
        find = searching(list(corpus.values()), N)

        def search(
            text: str, find: Callable[[str], list[str]] = find, corpus: dict[str, Passage] = corpus
        ) -> list[Passage]:
            return [corpus[id] for id in find(text)]

        held = {example.query.id for example in read_examples(examples / f"{name}-all-held.jsonl")}
        kept = [question for question in questions if question.query.id in held]
        yield Corpus(tuple((one, tuple(search(one.query.text))) for one in kept), search)


def ranked(corpus: Corpus, hops: int, retrieving: bool) -> list[Asked]:
    """Its questions' rankings."""
    retrieve = corpus.search if retrieving else None
    with Reranker(OpenVINO(max_batch=BATCH), k=K, hops=hops, fusion="off", retrieve=retrieve) as reranker:
        results = dict(reranker.rank_many((question.query, passages) for question, passages in corpus.asked))
    found: list[Asked] = []
    for place, (question, _) in enumerate(corpus.asked):
        one = results[place]
        assert isinstance(one, Ranking), one
        found.append((question, one, ranks(one, corpus.search)))
    return found


def ranks(one: Ranking, search: Callable[[str], list[Passage]]) -> list[int]:
    """Of its candidates, each in the retrieval that found it."""
    first = len(one.candidates) - one.retrieved
    if not one.retrieved:
        return list(range(1, first + 1))
    known = one.candidates[one.trace[-1].known[-1]]
    found = [passage.id for passage in search(" ".join(filter(None, (one.query.text, known.title, known.text))))]
    return [*range(1, first + 1), *(found.index(passage.id) + 1 for passage in one.candidates[first:])]


def measured(orders: Sequence[tuple[Question, Sequence[Passage]]]) -> Mapping[str, Sequence[float]]:
    """R@2 and R@5 of each question, in order."""
    ids = {question.query.id: [passage.id for passage in order] for question, order in orders}
    scores = answers.scores(ids, {question.query.id: question.supports for question, _ in orders}, CUTOFFS)
    return {f"R@{k}": [scores[f"R@{k}"][question.query.id] for question, _ in orders] for k in CUTOFFS}


def row(cells: str, own: Mapping[str, Sequence[float]], base: Mapping[str, Sequence[float]]) -> None:
    """Print a line of the table: the means and the paired differences."""
    table = np.array([own[measure] for measure in own]).T
    minus = np.array([base[measure] for measure in own]).T
    means = [f"{one.mean:.3f} ({one.low:.3f} to {one.high:.3f})" for one in intervals.estimates(table)]
    moved = [f"{one.mean:+.3f} ({one.low:+.3f} to {one.high:+.3f})" for one in intervals.differences(table - minus)]
    print(f"| {cells} | {' | '.join([*means, *moved])} |", flush=True)


def main(data: str, examples: str) -> None:
    """Print the table."""
    found = list(corpora(Path(data), Path(examples)))
    base = measured([one for corpus in found for one in corpus.asked])
    print(HEAD.format(questions=len(base["R@5"]), n=N, batch=BATCH))
    row("BM25 | | | ", base, base)
    for hops, retrieving, name in ((1, False, "1 hop"), (2, False, "2 hops"), (2, True, "2 hops, retrieving")):
        start = time.perf_counter()
        asked = [one for corpus in found for one in ranked(corpus, hops, retrieving)]
        seconds = (time.perf_counter() - start) / len(asked)
        cost = f"{sum(len(one.trace) for _, one, _ in asked) / len(asked):.1f} | {seconds:.1f}"
        for constant in CONSTANTS:
            told = "off" if constant is None else str(constant)
            row(
                f"{name} | {told} | {cost}",
                measured([(question, order(one, constant, places)) for question, one, places in asked]),
                base,
            )
        if retrieving:
            for constant in CONSTANTS[1:]:
                last = [(question, order(one, constant, places, last=True)) for question, one, places in asked]
                row(f"{name}, no rank there | {constant} | {cost}", measured(last), base)


def order(one: Ranking, constant: float | None, places: Sequence[int], *, last: bool = False) -> list[Passage]:
    """Its passages, fused; `last`: what was found later counts by its rank in the result alone."""
    n = len(one.candidates) - one.retrieved if last else len(one.candidates)
    never = 10**9
    known = [place if position < n else never for position, place in enumerate(places)]
    fusion = one.order if constant is None else fused(one.order, constant, known)
    return [one.candidates[position] for position in fusion]


if __name__ == "__main__":
    main(*sys.argv[1:])
