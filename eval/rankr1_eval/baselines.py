"""Which first stage gives the candidates of a question: BM25, an embedding model, its own paragraphs, or a TREC run.

Knows the retrievers and what a question brings along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from threading import Lock
from typing import Literal

from rankr1_eval.retrieval.bm25 import bm25, searching
from rankr1_eval.retrieval.dense import MODEL, Dense
from rankr1_eval.run_folder import digest
from rankr1_eval.types import Question
from rankr1_rag.errors import FileError
from rankr1_rag.io.trec import Run, Scored, read_run
from rankr1_rag.types import Passage, Query

Retriever = Literal["bm25", "dense", "own", "run"]


@dataclass(frozen=True)
class FirstStage:
    """How the candidates are found, n of them. `run`, a TREC file, is needed for "run", whose ids are the corpus's own.

    `model` is the embedding model of "dense", `cache` a folder for its embeddings.
    """

    retriever: Retriever = "bm25"
    n: int = 20
    run: Path | None = None
    model: str = MODEL
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ValueError(f"candidates={self.n}: at least 2, or there is nothing to rerank")
        if (self.retriever == "run") != (self.run is not None):
            raise ValueError("a run is needed for the retriever 'run', and for no other")

    @cached_property
    def _read(self) -> Run:
        """The TREC file, read once: it may be a pipe."""
        return read_run(self.run, self.n) if self.run is not None else {}

    def telling(self, corpus: Sequence[Passage]) -> Mapping[str, object]:
        """What the candidates depend on."""
        found: dict[str, object] = {"retriever": self.retriever, "candidates": self.n}
        found["corpus"] = digest(*(passage.id for passage in corpus))
        if self.retriever == "dense":
            found["dense"] = self.model
        if self.run is not None:
            found["run"] = digest(sorted(self._read.items()))
        return found

    def over(self, questions: Sequence[Question], corpus: Sequence[Passage]) -> Callable[[list[Query]], Run]:
        """What finds the candidates of some of these questions in this corpus."""
        if self.retriever == "own":
            own = {question.query.id: _own(question)[: self.n] for question in questions}
            return lambda queries: {query.id: own[query.id] for query in queries}
        if self.run is not None:
            given = self._given(self.run, corpus)
            return lambda queries: {query.id: given(query) for query in queries}
        if self.retriever == "dense":
            return lambda queries: Dense(self.model, self.cache).run(corpus, queries, self.n)
        return lambda queries: bm25(corpus, queries, self.n)

    def search(self, corpus: Sequence[Passage]) -> Callable[[str], list[Passage]]:
        """What finds n passages of this corpus for any text, from any thread; made ready when it is first asked.

        ValueError where the retriever knows the candidates of its questions and nothing else.
        """
        if self.retriever in ("own", "run"):
            raise ValueError(
                f"retrieve=true asks the retriever again, and {self.retriever!r} finds nothing for another text than "
                "its questions: take the retriever bm25 or dense"
            )
        passages, lock = {passage.id: passage for passage in corpus}, Lock()
        ready = cache(lambda: self._searching(corpus))

        def search(text: str) -> list[Passage]:
            with lock:  # an embedding model serves one thread at a time
                return [passages[id] for id in ready()(text)]

        return search

    def _searching(self, corpus: Sequence[Passage]) -> Callable[[str], list[str]]:
        if self.retriever == "dense":
            return Dense(self.model, self.cache).searching(corpus, self.n)
        return searching(corpus, self.n)

    def _given(self, path: Path, corpus: Sequence[Passage]) -> Callable[[Query], list[Scored]]:
        run, known = self._read, {passage.id for passage in corpus}

        def ranked(query: Query) -> list[Scored]:
            if query.id not in run:
                raise FileError(path, None, f"the run ranks nothing for the question {query.id!r}")
            if strange := [scored.id for scored in run[query.id] if scored.id not in known]:
                raise FileError(
                    path,
                    None,
                    f"question {query.id!r}: passage {strange[0]!r} is not in passages.jsonl, the corpus",
                )
            return run[query.id]

        return ranked


def _own(question: Question) -> list[Scored]:
    """Its own paragraphs in file order; scores fall with the place."""
    ids = list(dict.fromkeys(passage.id for passage in question.passages))
    return [Scored(id, 1 / rank) for rank, id in enumerate(ids, 1)]
