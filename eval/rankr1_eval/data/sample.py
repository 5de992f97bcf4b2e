"""A seeded choice of questions, and the corpus that their paragraphs make together.

The choice follows from the seed and each question's id, and from nothing else: it is the same in every process and
Python, whatever the order of the file; and a greater sample holds the smaller ones of its seed, so that what was asked
for 50 questions serves for 100. Knows no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from rankr1_eval.types import Question, pooled
from rankr1_rag.types import Passage


def sample(questions: Sequence[Question], n: int | None, seed: int) -> list[Question]:
    """N of the questions, in file order; all where `n` is None or more than there are. ValueError below 1."""
    if n is not None and n < 1:
        raise ValueError(f"{n} questions: at least 1, or None for all")
    if n is None or n >= len(questions):
        return list(questions)
    chosen = drawn((question.query.id for question in questions), n, seed)
    return [question for question in questions if question.query.id in chosen]


def corpus(
    questions: Sequence[Question], asked: Iterable[Question], pool: int | None, seed: int
) -> tuple[Passage, ...]:
    """The pooled paragraphs, in file order, of `pool` questions: those asked and a seeded sample of the others.

    None takes all questions. ValueError where fewer than those asked are to contribute.
    """
    if pool is None:
        return pooled(questions)
    ids = {question.query.id for question in asked}
    if pool < len(ids):
        raise ValueError(f"a corpus of {pool} questions: it must hold the paragraphs of the {len(ids)} that are asked")
    others = [question for question in questions if question.query.id not in ids]
    ids |= drawn((question.query.id for question in others), pool - len(ids), seed)
    return pooled(question for question in questions if question.query.id in ids)


def drawn(ids: Iterable[str], n: int, seed: int) -> set[str]:
    """N of the ids, all where there are no more."""
    return set(sorted(ids, key=lambda id: sha256(f"{seed}\n{id}".encode("utf-8", "surrogatepass")).digest())[:n])
