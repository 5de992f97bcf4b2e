"""BM25 over a corpus held in memory, by bm25s: title and text, English stemming and stop words, its own defaults.

This is Lucene's formula (k1 1.5, b 0.75) but not Pyserini's BM25, which has other constants, stop words and stemmer:
for the paper's figures take its run (`rankr1-eval reproduce --run`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rankr1_rag.io.trec import Run, Scored
from rankr1_rag.types import Passage, Query


def bm25(corpus: Sequence[Passage], queries: Sequence[Query], n: int) -> Run:
    """For each query id its best n passages; equal scores stand in corpus order. Deterministic.

    Fewer than n where the corpus is smaller. A query without any word of the corpus scores 0 everywhere, and gets the
    first n. ValueError where the corpus is empty, or holds nothing but stop words.
    """
    run = Run()
    for query, scores in zip(queries, _scores(corpus, [query.text for query in queries]), strict=True):
        run[query.id] = [Scored(corpus[place].id, float(scores[place])) for place in _best(scores, n)]
    return run


def searching(corpus: Sequence[Passage], n: int) -> Callable[[str], list[str]]:
    """What finds for a text the ids that `bm25` finds, in an index that is made once. ValueError as there."""
    index = _index(corpus)

    def found(text: str) -> list[str]:
        (scores,) = _scored(index, len(corpus), [text])
        return [corpus[place].id for place in _best(scores, n)]

    return found


def scores_at(corpus: Sequence[Passage], asked: Sequence[tuple[str, Sequence[int]]]) -> list[list[float]]:
    """For each (query, places in the corpus) the scores of the passages there. ValueError as `bm25`."""
    found = zip(asked, _scores(corpus, [query for query, _ in asked]), strict=True)
    return [[float(scores[place]) for place in places] for (_, places), scores in found]


def _scores(corpus: Sequence[Passage], queries: list[str]) -> Iterator[Any]:
    """For each query the scores of the whole corpus."""
    yield from _scored(_index(corpus), len(corpus), queries)


def _scored(index: Any, n: int, queries: list[str]) -> Iterator[Any]:  # noqa: ANN401
    import numpy

    for words in _words(queries, return_ids=False):
        known = index.get_tokens_ids(words)
        yield index.get_scores_from_ids(known) if known else numpy.zeros(n)


def _index(corpus: Sequence[Passage]) -> Any:  # noqa: ANN401
    import bm25s

    if not corpus:
        raise ValueError("the corpus is empty: there is nothing to retrieve from")
    words = _words([f"{passage.title} {passage.text}" for passage in corpus])
    if not words.vocab:
        raise ValueError(
            "the corpus holds nothing but English stop words, so BM25 cannot tell its passages apart: "
            "give another corpus or another retriever"
        )
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    return index


def _words(texts: list[str], **options: bool) -> Any:  # noqa: ANN401
    """The stems of each text, without stop words; none for an empty text."""
    import bm25s
    import Stemmer

    return bm25s.tokenize(texts, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False, **options)


def _best(scores: Any, n: int) -> Any:  # noqa: ANN401
    """The first n of a stable descending sort, of which only those that can be among them are sorted."""
    import numpy

    if n < len(scores):
        least = numpy.partition(scores, -n)[-n]
        places = numpy.flatnonzero(scores >= least)
    else:
        places = numpy.arange(len(scores))
    return places[numpy.argsort(-scores[places], kind="stable")][:n]
