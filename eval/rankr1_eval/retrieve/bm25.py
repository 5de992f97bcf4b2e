"""BM25 over a corpus held in memory, by bm25s: title and text, English stemming and stop words, its own defaults.

This is Lucene's formula (k1 1.5, b 0.75) but not Pyserini's BM25, which has other constants, stop words and stemmer:
for the paper's figures take its run (`rankr1-eval reproduce --run`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rankr1_rag.trec import Run, Scored
from rankr1_rag.types import Passage, Query


def bm25(corpus: Sequence[Passage], queries: Sequence[Query], n: int) -> Run:
    """For each query id its best n passages; equal scores stand in corpus order. Deterministic.

    Fewer than n where the corpus is smaller. ValueError where the corpus is empty.
    """
    import bm25s
    import numpy
    import Stemmer

    if not corpus:
        raise ValueError("the corpus is empty: there is nothing to retrieve from")
    stemmer = Stemmer.Stemmer("english")

    def tokens(texts: list[str]) -> Any:  # noqa: ANN401
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)

    index = bm25s.BM25()
    index.index(tokens([f"{passage.title} {passage.text}" for passage in corpus]), show_progress=False)
    asked = tokens([query.text for query in queries])
    found, scores = index.retrieve(asked, k=min(n, len(corpus)), show_progress=False)
    run: Run = {}
    for query, row, values in zip(queries, found, scores, strict=True):
        order = numpy.lexsort((row, -values))
        run[query.id] = [Scored(corpus[row[place]].id, float(values[place])) for place in order]
    return run
