"""Training examples from multi-hop questions: supports are the positives, other passages that BM25 finds the negatives.

BM25 searches the paragraphs of all the questions, and not merely the question's own: a reranker in use is shown such
passages. Where a support is known already, another one is the positive.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest

from rankr1_eval.data.loading import drawn
from rankr1_eval.retrieval.bm25 import bm25
from rankr1_eval.types import Question, pooled
from rankr1_rag.train.data import Example, digest
from rankr1_rag.types import Passage, Query

DEPTH = 50
"""Passages of BM25 among which the negatives are."""

UNSUPPORTED = "none of its supports is in the corpus"
ALONE = "BM25 finds nothing but its supports"
UNFOUND = "BM25 finds none of its supports"

MISLED, MISLEADING = 0.15, 5
"""The share of known passages that are no support but one of the first negatives: a selection errs, too."""


@dataclass(frozen=True)
class ExamplesMade:
    """The examples, in the order of the questions; `left_out` is the reason by id for each question without one.

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
) -> ExamplesMade:
    """An example for each question: its supports as far as the corpus has them, and the negatives hardest first.

    The negatives are BM25's first `depth` of the corpus, without the supports; the corpus is by default the paragraphs
    of all these questions. With `found` only the supports among BM25's first `found` are positives: those that a
    reranker meets. Deterministic. ValueError for `depth` or `found` below 1, or a corpus without any word.
    """
    for name, value in (("depth", depth), ("found", found)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: must be at least 1 passage of BM25")
    pool = pooled(questions) if corpus is None else corpus
    passages = {passage.id: passage for passage in pool}
    run = bm25(pool, [question.query for question in questions], max(depth, found or 1))
    made: list[Example] = []
    left_out: dict[str, str] = {}
    for question in questions:
        ranked = [passages[scored.id] for scored in run[question.query.id]]
        right = passages if found is None else {passage.id: passage for passage in ranked[:found]}
        positives = tuple(right[id] for id in question.supports if id in right)
        negatives = tuple(passage for passage in ranked[:depth] if passage.id not in question.supports)
        try:
            if not positives:
                raise ValueError(UNSUPPORTED if passages.keys().isdisjoint(question.supports) else UNFOUND)
            if not negatives:
                raise ValueError(ALONE)
            made.append(Example(question.query, positives, negatives, source, answer=question.answers[0]))
        except ValueError as error:
            left_out[question.query.id] = str(error)
    absent = sum(id not in passages for question in questions for id in question.supports)
    return ExamplesMade(tuple(made), left_out, absent, tuple(pool))


def known(examples: Sequence[Example], corpus: Sequence[Passage], seed: int, depth: int = DEPTH) -> list[Example]:
    """Each positive again, where another positive of its question, drawn by the seed, is known already.

    The negatives are those of the example and, in turn with them, BM25's first `depth` for the query and the known
    passage. A positive that is its question's only one is left out. Some known passages are no support: `MISLED`. Ids
    are those of the questions and a number. Deterministic; each example depends on the seed and its own question alone.
    """
    passages = {passage.id: passage for passage in corpus}
    chosen: list[tuple[Example, Query, Passage, Passage]] = []
    for example in examples:
        for place, positive in enumerate(example.positives if len(example.positives) > 1 else (), start=1):
            generator = random.Random(digest(f"{seed}\n{example.query.id}\n{positive.id}"))
            if generator.random() < MISLED and len(example.negatives) > MISLEADING:
                shown = generator.choice(example.negatives[:MISLEADING])
            else:
                shown = generator.choice([other for other in example.positives if other.id != positive.id])
            query = replace(example.query, id=f"{example.query.id}+{place}")
            chosen.append((example, query, positive, shown))
    expanded = [replace(query, text=f"{query.text} {one.title} {one.text}") for _, query, _, one in chosen]
    run = bm25(corpus, expanded, depth)
    found = []
    for example, query, positive, shown in chosen:
        taken = {passage.id for passage in (shown, *example.positives)}
        ranked = [passages[scored.id] for scored in run[query.id]]
        both = chain.from_iterable(zip_longest(example.negatives, ranked))
        negatives = dict.fromkeys(passage for passage in both if passage is not None and passage.id not in taken)
        found.append(replace(example, query=query, positives=(positive,), negatives=tuple(negatives), known=(shown,)))
    return found


def apart(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """The examples to train on, and a share of them held out, both in order: the smallest hashes of seed and id.

    ValueError for a share outside of 0..1, both left out, or where nothing is left to train on.
    """
    if not 0 < share < 1:
        raise ValueError(f"held-out share {share}: must be between 0 and 1, 0.1 for example")
    held = drawn((example.query.id for example in examples), max(1, round(share * len(examples))), seed)
    kept = [example for example in examples if example.query.id not in held]
    if not kept:
        raise ValueError(f"{share} of {len(examples)} examples are all of them: none is left to train on")
    return kept, [example for example in examples if example.query.id in held]
