"""The first stage of an evaluation: BM25, an embedding model, the question's own paragraphs, or a TREC run."""

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
    """How n candidates are found. `run`, a TREC file with the corpus's own ids, is needed for "run" alone.

    `model` is the embedding model of "dense", `cache` a folder for its embeddings; `distances`: those are the scores of
    the run.
    """

    retriever: Retriever = "bm25"
    n: int = 20
    run: Path | None = None
    model: str = MODEL
    cache: Path | None = None
    distances: bool = False

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ValueError(f"candidates={self.n}: must be at least 2")
        if (self.retriever == "run") != (self.run is not None):
            raise ValueError("run= needs the retriever 'run', and the retriever 'run' needs run=")

    @cached_property
    def _run(self) -> Run:
        """The TREC file, read once: it may be a pipe."""
        return read_run(self.run, self.n, distances=self.distances) if self.run is not None else {}

    def settings(self, corpus: Sequence[Passage]) -> Mapping[str, object]:
        """What the candidates depend on."""
        found: dict[str, object] = {"retriever": self.retriever, "candidates": self.n}
        found["corpus"] = digest(*(passage.id for passage in corpus))
        if self.retriever == "dense":
            found["dense"] = self.model
        if self.run is not None:
            found["run"] = digest(sorted(self._run.items()))
        return found

    def over(self, questions: Sequence[Question], corpus: Sequence[Passage]) -> Callable[[list[Query]], Run]:
        """A function that finds the candidates of some of these questions in this corpus."""
        if self.retriever == "own":
            own: Run = {}
            for question in questions:
                ids = list(dict.fromkeys(passage.id for passage in question.passages))[: self.n]
                own[question.query.id] = [Scored(id, 1 / rank) for rank, id in enumerate(ids, 1)]
            return lambda queries: {query.id: own[query.id] for query in queries}
        if self.run is not None:
            path, known = self.run, {passage.id for passage in corpus}

            def ranked(id: str) -> list[Scored]:
                if id not in self._run:
                    raise FileError(path, None, f"the run ranks nothing for the question {id!r}")
                if strange := [one.id for one in self._run[id] if one.id not in known]:
                    problem = f"question {id!r}: passage {strange[0]!r} is not in passages.jsonl, the corpus"
                    raise FileError(path, None, problem)
                return self._run[id]

            return lambda queries: {query.id: ranked(query.id) for query in queries}
        if self.retriever == "dense":
            return lambda queries: Dense(self.model, self.cache).run(corpus, queries, self.n)
        return lambda queries: bm25(corpus, queries, self.n)

    def search(self, corpus: Sequence[Passage]) -> Callable[[str], list[Passage]]:
        """A function that finds n passages of this corpus for any text, from any thread; prepared at its first call.

        ValueError where the retriever knows only the candidates of its questions.
        """
        if self.retriever in ("own", "run"):
            raise ValueError(
                f"retrieve=true cannot search with the retriever {self.retriever!r}, which knows only its questions: "
                "take the retriever bm25 or dense"
            )
        passages, lock = {passage.id: passage for passage in corpus}, Lock()

        @cache
        def prepared() -> Callable[[str], list[str]]:
            if self.retriever == "dense":
                return Dense(self.model, self.cache).searching(corpus, self.n)
            return searching(corpus, self.n)

        def search(text: str) -> list[Passage]:
            with lock:  # an embedding model serves one thread at a time
                return [passages[id] for id in prepared()(text)]

        return search
