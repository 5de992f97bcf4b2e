"""Orders of candidates that no reasoning reranker makes: the rows that a claim is measured against.

Each takes positions' passages and gives positions, best first. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import Any

from rankr1_eval.retrieve.dense import Dense, shown
from rankr1_rag.fusion import ordered
from rankr1_rag.types import Passage, Query

Order = tuple[int, ...]
Reorder = Callable[[Query, Sequence[Passage]], Order]


def oracle(passages: Sequence[Passage], supports: Collection[str]) -> Order:
    """The supports first, then the others as they were."""
    found = [position for position, passage in enumerate(passages) if passage.id in supports]
    return ordered(found, len(passages))


def shuffled(query: Query, passages: Sequence[Passage], seed: int) -> Order:
    """A random order, drawn from the seed and the query's id alone."""
    return tuple(Random(f"{seed}\n{query.id}").sample(range(len(passages)), len(passages)))


def dense(model: str) -> Reorder:
    """By similarity to the query. ImportError without the extra."""
    embedder = Dense(model) if model else Dense()

    def reorder(query: Query, passages: Sequence[Passage]) -> Order:
        places = [Passage(str(position), shown(passage)) for position, passage in enumerate(passages)]
        return tuple(int(scored.id) for scored in embedder.run(places, [query], len(places))[query.id])

    return reorder


def cross_encoder(model: str) -> Reorder:
    """By a cross-encoder of sentence-transformers with one label. ImportError without the extra."""
    try:
        from sentence_transformers import CrossEncoder
    except ImportError as error:
        raise ImportError('a cross-encoder needs a library: pip install "rankr1-eval[dense]"') from error
    loaded: list[Any] = []

    def reorder(query: Query, passages: Sequence[Passage]) -> Order:
        if not loaded:
            loaded.append(CrossEncoder(model, trust_remote_code=False))
        scores = loaded[0].predict([(query.text, shown(passage)) for passage in passages], show_progress_bar=False)
        if scores.ndim != 1:
            raise ValueError(f"cross-encoder {model!r} gives {scores.shape[1]} scores for a pair: one is needed")
        return tuple(sorted(range(len(passages)), key=lambda position: -float(scores[position])))

    return reorder
