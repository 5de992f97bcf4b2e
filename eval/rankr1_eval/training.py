"""Training examples out of multi-hop questions: supports are the positives, what BM25 finds beside them the negatives.

The negatives come from the paragraphs of all the questions, in BM25's order: what a reranker is shown in use, and not
merely the question's own paragraphs. Knows questions and examples; nothing of files, models or the command line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankr1_eval.data.sample import drawn
from rankr1_eval.retrieve.bm25 import bm25
from rankr1_eval.types import Question, pooled
from rankr1_rag.train.examples import Example
from rankr1_rag.types import Passage

DEPTH = 50
"""So many passages of BM25 are looked through for negatives."""

UNSUPPORTED = "none of its supports is in the corpus"
ALONE = "BM25 finds nothing but its supports"


@dataclass(frozen=True)
class Made:
    """The examples, in the order of the questions; `left_out` tells of each question without one why: id to reason.

    `absent` supports are in no paragraph of the corpus, of which there are `passages`.
    """

    examples: tuple[Example, ...]
    left_out: Mapping[str, str]
    absent: int
    passages: int


def examples(
    questions: Sequence[Question], depth: int = DEPTH, source: str = "", corpus: Sequence[Passage] | None = None
) -> Made:
    """An example for each question: its supports as far as the corpus has them, and the negatives hardest first.

    The negatives are BM25's first `depth` of the corpus, the supports taken out; the corpus is the paragraphs of all
    these questions, unless one is given. Deterministic. ValueError for `depth` below 1, or a corpus without any word.
    """
    if depth < 1:
        raise ValueError(f"depth={depth}: at least 1 passage must be looked at, or there are no negatives")
    pool = pooled(questions) if corpus is None else corpus
    passages = {passage.id: passage for passage in pool}
    run = bm25(pool, [question.query for question in questions], depth)
    made: list[Example] = []
    left_out: dict[str, str] = {}
    for question in questions:
        ranked = [passages[scored.id] for scored in run[question.query.id]]
        try:
            made.append(_example(question, passages, ranked, source))
        except ValueError as error:
            left_out[question.query.id] = str(error)
    absent = sum(id not in passages for question in questions for id in question.supports)
    return Made(tuple(made), left_out, absent, len(pool))


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


def _example(question: Question, passages: Mapping[str, Passage], ranked: Sequence[Passage], source: str) -> Example:
    """ValueError with the reason where there is none."""
    positives = tuple(passages[id] for id in question.supports if id in passages)
    if not positives:
        raise ValueError(UNSUPPORTED)
    negatives = tuple(passage for passage in ranked if passage.id not in question.supports)
    if not negatives:
        raise ValueError(ALONE)
    return Example(question.query, positives, negatives, source)
