"""A small multi-hop corpus, written for this project: passages, questions with their supports, BM25 as first stage.

    {"id": "lise-meitner", "title": "Lise Meitner", "text": "…"}
    {"id": "q01", "text": "…", "answer": "…", "supports": ["…", "…"], "type": "bridge"}

For trying things out, not for measuring models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from rankr1_rag.types import Passage, Query


@dataclass(frozen=True, slots=True)
class DemoQuestion:
    """A question; `supports` are the ids of the passages that answer it together, in the order of use."""

    query: Query
    answer: str
    supports: tuple[str, ...]
    type: str

    def recall(self, passages: Sequence[Passage], k: int) -> float:
        """The share of the supports among the first k, 0..1."""
        return len(set(self.supports) & {passage.id for passage in passages[:k]}) / len(self.supports)


def passages() -> tuple[Passage, ...]:
    """The passages of the corpus."""
    return tuple(Passage(**record) for record in read_records("passages.jsonl"))


def questions() -> tuple[DemoQuestion, ...]:
    """The questions, in order of their ids."""
    return tuple(
        DemoQuestion(Query(record["id"], record["text"]), record["answer"], tuple(record["supports"]), record["type"])
        for record in read_records("questions.jsonl")
    )


class BM25:
    """The first stage over a corpus: bm25s with English stemming. ImportError with the pip command."""

    def __init__(self, corpus: Sequence[Passage]) -> None:
        try:
            import bm25s
            import Stemmer
        except ImportError as error:
            raise ImportError('the demo needs a first stage: pip install "rankr1-rag[demo]"') from error
        self.corpus = corpus
        self._stemmer, self._tokenize = Stemmer.Stemmer("english"), bm25s.tokenize
        self._index = bm25s.BM25()
        self._index.index(self._tokens([f"{one.title} {one.text}" for one in corpus]), show_progress=False)

    def search(self, text: str, n: int = 20) -> tuple[Passage, ...]:
        """The top n of a text."""
        found, _ = self._index.retrieve(self._tokens([text]), k=min(n, len(self.corpus)), show_progress=False)
        return tuple(self.corpus[position] for position in found[0])

    def _tokens(self, texts: list[str]) -> Any:  # noqa: ANN401
        return self._tokenize(texts, stopwords="en", stemmer=self._stemmer, show_progress=False)


def read_records(name: str) -> list[dict[str, Any]]:
    """The JSON lines of a file of this package."""
    text = files(__name__).joinpath(name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
