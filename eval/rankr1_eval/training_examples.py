"""Training examples out of multi-hop questions: supports are the positives, what BM25 finds beside them the negatives.

The negatives come from the paragraphs of all the questions, in BM25's order: what a reranker is shown in use, and not
merely the question's own paragraphs. Where a support is known already, another one is the positive. Knows questions
and examples; nothing of files, models or the command line.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest

from rankr1_eval.data.loading import drawn
from rankr1_eval.retrieval.bm25 import bm25
from rankr1_eval.types import Question, pooled
from rankr1_rag.train.data import Example, digest
from rankr1_rag.types import Passage, Query

DEPTH = 50
"""So many passages of BM25 are looked through for negatives."""

UNSUPPORTED = "none of its supports is in the corpus"
ALONE = "BM25 finds nothing but its supports"
UNFOUND = "BM25 finds none of its supports"

MISLED, MISLEADING = 0.15, 5
"""The share of known passages that are no support but one of the first negatives: a selection errs, too."""


@dataclass(frozen=True)
class Made:
    """The examples, in the order of the questions; `left_out` tells of each question without one why: id to reason.

    `absent` supports are in no paragraph of the corpus, which is `passages`.
    """

    examples: tuple[Example, ...]
    left_out: Mapping[str, str]
    absent: int
    passages: tuple[Passage, ...]


def examples(
    questions: Sequence[Question],
    depth: int = DEPTH,
    source: str = "",
    corpus: Sequence[Passage] | None = None,
    found: int | None = None,
) -> Made:
    """An example for each question: its supports as far as the corpus has them, and the negatives hardest first.

    The negatives are BM25's first `depth` of the corpus, the supports taken out; the corpus is the paragraphs of all
    these questions, unless one is given. With `found` only the supports among BM25's first so many are positives: those
    that a reranker meets. Deterministic. ValueError for `depth` or `found` below 1, or a corpus without any word.
    """
    for name, value in (("depth", depth), ("found", found)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: at least 1 passage of BM25 must be looked at")
    pool = pooled(questions) if corpus is None else corpus
    passages = {passage.id: passage for passage in pool}
    run = bm25(pool, [question.query for question in questions], max(depth, found or 1))
    made: list[Example] = []
    left_out: dict[str, str] = {}
    for question in questions:
        ranked = [passages[scored.id] for scored in run[question.query.id]]
        right = passages if found is None else {passage.id: passage for passage in ranked[:found]}
        try:
            made.append(_example(question, passages, right, ranked[:depth], source))
        except ValueError as error:
            left_out[question.query.id] = str(error)
    absent = sum(id not in passages for question in questions for id in question.supports)
    return Made(tuple(made), left_out, absent, tuple(pool))


def known(examples: Sequence[Example], corpus: Sequence[Passage], seed: int, depth: int = DEPTH) -> list[Example]:
    """Each positive again, where another positive of its question, drawn by the seed, is known already.

    The negatives are those of the example and, in turn with them, BM25's first `depth` for the query and what is known.
    A positive that is its question's only one is left out. Some of what is known is no support: `MISLED`. Ids are those
    of the questions and a number. Deterministic; each example follows from the seed and its own question alone.
    """
    passages = {passage.id: passage for passage in corpus}
    drawn = [
        (replace(example.query, id=f"{example.query.id}+{place}"), positive, _given(example, positive, seed), example)
        for example in examples
        for place, positive in enumerate(example.positives, start=1)
        if len(example.positives) > 1
    ]
    run = bm25(corpus, [_expanded(query, given) for query, _, given, _ in drawn], depth)
    return [
        Example(
            query, (positive,), _beside(example, given, [passages[one.id] for one in run[query.id]]), source, (given,)
        )
        for query, positive, given, example in drawn
        for source in (example.source,)
    ]


def apart(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """The examples to train on, and a share of them held out, both in order: the smallest hashes of seed and id.

    ValueError for a share outside of 0..1, both left out, or where nothing is left to train on.
    """
    if not 0 < share < 1:
        raise ValueError(f"a held-out share of {share}: between 0 and 1 is needed, 0.1 for example")
    held = drawn((example.query.id for example in examples), max(1, round(share * len(examples))), seed)
    kept = [example for example in examples if example.query.id not in held]
    if not kept:
        raise ValueError(f"of {len(examples)} examples {share} are held out: none is left to train on")
    return kept, [example for example in examples if example.query.id in held]


def _example(
    question: Question,
    passages: Mapping[str, Passage],
    right: Mapping[str, Passage],
    ranked: Sequence[Passage],
    source: str,
) -> Example:
    """`right` are the passages that may be positives. ValueError with the reason where there is no example."""
    positives = tuple(right[id] for id in question.supports if id in right)
    if not positives:
        known = any(id in passages for id in question.supports)
        raise ValueError(UNFOUND if known else UNSUPPORTED)
    negatives = tuple(passage for passage in ranked if passage.id not in question.supports)
    if not negatives:
        raise ValueError(ALONE)
    return Example(question.query, positives, negatives, source)


def _given(example: Example, positive: Passage, seed: int) -> Passage:
    generator = random.Random(digest(f"{seed}\n{example.query.id}\n{positive.id}"))
    if generator.random() < MISLED and len(example.negatives) > MISLEADING:
        return generator.choice(example.negatives[:MISLEADING])
    return generator.choice([other for other in example.positives if other.id != positive.id])


def _expanded(query: Query, given: Passage) -> Query:
    return replace(query, text=f"{query.text} {given.title} {given.text}")


def _beside(example: Example, given: Passage, ranked: Iterable[Passage]) -> tuple[Passage, ...]:
    """The negatives of both rankings in turn, without what is right and what is known."""
    taken = {given.id, *(positive.id for positive in example.positives)}
    both = chain.from_iterable(zip_longest(example.negatives, ranked))
    return tuple(dict.fromkeys(one for one in both if one is not None and one.id not in taken))
