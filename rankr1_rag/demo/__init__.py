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


def first_stage(questions: Sequence[DemoQuestion], corpus: Sequence[Passage], n: int = 20) -> list[tuple[Passage, ...]]:
    """The BM25 top n of each question, by bm25s with English stemming. ImportError with the pip command."""
    try:
        import bm25s
        import Stemmer
    except ImportError as error:
        raise ImportError('the demo needs a first stage: pip install "rankr1-rag[demo]"') from error
    stemmer = Stemmer.Stemmer("english")

    def tokens(texts: list[str]) -> Any:  # noqa: ANN401
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)

    index = bm25s.BM25()
    index.index(tokens([f"{passage.title} {passage.text}" for passage in corpus]), show_progress=False)
    found, _ = index.retrieve(tokens([q.query.text for q in questions]), k=min(n, len(corpus)), show_progress=False)
    return [tuple(corpus[position] for position in row) for row in found]


def read_records(name: str) -> list[dict[str, Any]]:
    """The JSON lines of a file of this package."""
    text = files(__name__).joinpath(name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
