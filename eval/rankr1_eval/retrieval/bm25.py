"""BM25 over a corpus held in memory, by bm25s: title and text, English stemming and stop words, its own defaults.

This is Lucene's formula (k1 1.5, b 0.75) but not Pyserini's BM25, which has other constants, stop words and stemmer:
for the paper's figures take its run (`rankr1-eval reproduce --run`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rankr1_rag.io.trec import Run, Scored
from rankr1_rag.types import Passage, Query


class Index:
    """An index of a corpus. ValueError where it is empty, or holds nothing but stop words."""

    def __init__(self, corpus: Sequence[Passage]) -> None:
        import bm25s

        if not corpus:
            raise ValueError("the corpus is empty: there is nothing to retrieve from")
        words = stems([f"{passage.title} {passage.text}" for passage in corpus])
        if not words.vocab:
            raise ValueError(
                "the corpus holds nothing but English stop words, so BM25 cannot tell its passages apart: "
                "give another corpus or another retriever"
            )
        self._size = len(corpus)
        self._index = bm25s.BM25()
        self._index.index(words, show_progress=False)

    def scores(self, query: str) -> Any:  # noqa: ANN401
        """The scores of the whole corpus, an array; all 0 for a query without any word of the corpus."""
        import numpy

        (words,) = stems([query], return_ids=False)
        known = self._index.get_tokens_ids(words)
        return self._index.get_scores_from_ids(known) if known else numpy.zeros(self._size)


def bm25(corpus: Sequence[Passage], queries: Sequence[Query], n: int) -> Run:
    """For each query id its best n passages; equal scores are in corpus order. Deterministic.

    Fewer than n where the corpus is smaller. A query without any word of the corpus gets the first n. ValueError as of
    `Index`.
    """
    run, index = Run(), Index(corpus)
    for query in queries:
        scores = index.scores(query.text)
        run[query.id] = [Scored(corpus[place].id, float(scores[place])) for place in best(scores, n)]
    return run


def searching(corpus: Sequence[Passage], n: int) -> Callable[[str], list[str]]:
    """A function that finds for a text the ids that `bm25` finds, with one index. ValueError as of `Index`."""
    index = Index(corpus)
    return lambda text: [corpus[place].id for place in best(index.scores(text), n)]


def scores_at(corpus: Sequence[Passage], asked: Sequence[tuple[str, Sequence[int]]]) -> list[list[float]]:
    """For each (query, places in the corpus) the scores of the passages there. ValueError as of `Index`."""
    index = Index(corpus)
    found = ((index.scores(query), places) for query, places in asked)
    return [[float(scores[place]) for place in places] for scores, places in found]


def stems(texts: list[str], **options: bool) -> Any:  # noqa: ANN401
    """The stems of each text, without stop words; none for an empty text."""
    import bm25s
    import Stemmer

    return bm25s.tokenize(texts, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False, **options)


def best(scores: Any, n: int) -> Any:  # noqa: ANN401
    """The first n places of a stable descending sort, of which only those that can be among them are sorted."""
    import numpy

    if n < len(scores):
        least = numpy.partition(scores, -n)[-n]
        places = numpy.flatnonzero(scores >= least)
    else:
        places = numpy.arange(len(scores))
    return places[numpy.argsort(-scores[places], kind="stable")][:n]
