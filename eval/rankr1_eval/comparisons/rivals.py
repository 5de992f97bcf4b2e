"""Which passage of each set others would name: who sees no text, BM25, an embedding model. Knows retrievers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rankr1_eval.retrieve.bm25 import scores_at
from rankr1_eval.retrieve.dense import Dense, shown
from rankr1_rag.train.examples import Example
from rankr1_rag.train.sets import TrainingSet

Choices = Mapping[str, int | None]
"""Comparison id to the place that is chosen."""


def rivals(
    sets: Mapping[str, TrainingSet], examples: Iterable[Example], model: str | None = None
) -> dict[str, Choices]:
    """By name what each chooses: "first" the passage shown first, "bm25", and with an embedding model "dense".

    BM25 weighs words by all passages of the examples. Of equal scores the one shown first counts. ValueError where the
    examples hold no word; ImportError where the model needs the extra.
    """
    found = {"first": dict.fromkeys(sets, 0), "bm25": _bm25(sets, examples)}
    return found if model is None else {**found, "dense": _dense(sets, model)}


def _bm25(sets: Mapping[str, TrainingSet], examples: Iterable[Example]) -> Choices:
    pool = (passage for example in examples for passage in (*example.positives, *example.negatives))
    corpus = {(passage.title, passage.text): passage for passage in pool}
    place = {content: at for at, content in enumerate(corpus)}
    asked = [
        (one.query.text, [place[passage.title, passage.text] for passage in one.passages]) for one in sets.values()
    ]
    return _best(sets, scores_at(list(corpus.values()), asked))


def _dense(sets: Mapping[str, TrainingSet], model: str) -> Choices:
    asked = [(one.query.text, [shown(passage) for passage in one.passages]) for one in sets.values()]
    return _best(sets, Dense(model).similarities(asked))


def _best(ids: Iterable[str], scores: Iterable[Sequence[float]]) -> Choices:
    return {id: max(range(len(own)), key=own.__getitem__) for id, own in zip(ids, scores, strict=True)}
