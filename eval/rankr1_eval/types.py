"""The words of the evaluation as values: a question with its supports, a collection with its judgements.

Frozen. Knows nothing of files, models or measures.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from rankr1_rag.trec import Qrels
from rankr1_rag.types import Passage, Query


@dataclass(frozen=True, slots=True)
class Question:
    """A question of a multi-hop data set.

    `answers` are the right answer strings, the official one first, aliases after it; at least one. `supports` are the
    ids of the passages that answer it together, distinct, in the order of the data set. `passages` are its own
    paragraphs, in the order of the file; a support need not be among them (HotpotQA's fullwiki setting). `type` and
    `hops` are the data set's own words; "" and None where it has none.
    """

    query: Query
    answers: tuple[str, ...]
    supports: tuple[str, ...]
    passages: tuple[Passage, ...]
    type: str = ""
    hops: int | None = None


Lookup = Callable[[Collection[str]], Mapping[str, Passage]]
"""Id to passage, of these ids, as far as there are any."""


@dataclass(frozen=True)
class Judged:
    """A retrieval collection with judgements: query id to text, a lookup of passages, qrels.

    `excluded` are passages that a query's ranking must not hold when it is scored (BRIGHT's `excluded_ids`).
    `everything` gives all its passages, one after another, where that can be had.
    """

    name: str
    queries: Mapping[str, str]
    passages: Lookup
    qrels: Qrels
    excluded: Mapping[str, frozenset[str]] = field(default_factory=dict)
    everything: Callable[[], Iterable[Passage]] | None = None


def passage_of(title: str, text: str) -> Passage:
    """A passage with an id made of its content: equal paragraphs are one passage, wherever they stand."""
    return Passage(sha256(f"{title}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()[:16], text, title)


def pooled(questions: Iterable[Question]) -> tuple[Passage, ...]:
    """The paragraphs of all the questions, each once, in order: the corpus of HippoRAG and IRCoT."""
    return tuple({passage.id: passage for question in questions for passage in question.passages}.values())
