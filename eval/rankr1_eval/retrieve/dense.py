"""A dense first stage, and dense reordering, with any model of sentence-transformers (extra `dense`).

Embeddings of a corpus are kept on disk, by model and content. Knows nothing of rerankers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from rankr1_rag.trec import Run, Scored
from rankr1_rag.types import Passage, Query

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


class Dense:
    """An embedding model, loaded on first use: a name of the hub or a folder. ImportError without the extra."""

    def __init__(self, model: str = MODEL, cache: Path | None = None) -> None:
        try:
            import sentence_transformers  # noqa: F401
        except ImportError as error:
            raise ImportError('dense retrieval needs a library: pip install "rankr1-eval[dense]"') from error
        self.model, self.cache = model, cache
        self._loaded: Any = None

    def run(self, corpus: Sequence[Passage], queries: Sequence[Query], n: int) -> Run:
        """For each query id its best n passages by cosine similarity; equal scores stand in corpus order."""
        import numpy

        if not corpus:
            raise ValueError("the corpus is empty: there is nothing to retrieve from")
        passages = self._kept(corpus)
        run: Run = {}
        for query, embedding in zip(queries, self._embedded([query.text for query in queries]), strict=True):
            scores = passages @ embedding
            order = numpy.argsort(-scores, kind="stable")[:n]
            run[query.id] = [Scored(corpus[place].id, float(scores[place])) for place in order]
        return run

    def _kept(self, corpus: Sequence[Passage]) -> Any:  # noqa: ANN401
        """The embeddings of the corpus, from the cache or new."""
        import numpy

        key = sha256("\n".join([self.model, *(passage.id for passage in corpus)]).encode()).hexdigest()[:24]
        path = self.cache / f"embeddings-{key}.npy" if self.cache else None
        if path and path.exists():
            return numpy.load(path, allow_pickle=False)
        embeddings = self._embedded(shown(passage) for passage in corpus)
        if path:
            part = path.with_suffix(".part.npy")
            numpy.save(part, embeddings, allow_pickle=False)
            part.replace(path)
        return embeddings

    def _embedded(self, texts: Iterable[str]) -> Any:  # noqa: ANN401
        """Unit vectors, one row a text."""
        if self._loaded is None:
            from sentence_transformers import SentenceTransformer

            self._loaded = SentenceTransformer(self.model, trust_remote_code=False)
        return self._loaded.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)


def shown(passage: Passage) -> str:
    """A passage as a model without a format of its own sees it: title, then text."""
    return f"{passage.title} {passage.text}".strip()
