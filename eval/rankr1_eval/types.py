"""Values of the evaluation: questions, judged collections, scores; and the error of a stage."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from rankr1_rag.errors import RankR1Error
from rankr1_rag.io.trec import Qrels
from rankr1_rag.types import Passage, Query


class StageError(RankR1Error):
    """Some questions of a stage failed; what was finished is kept."""

    def __init__(self, stage: str, failed: int, total: int, first: Exception, why: str = "") -> None:
        super().__init__(
            f"{stage}: {why}{failed} of {total} questions failed, the first with {type(first).__name__}: {first}. "
            "What was finished is kept; the same command asks for the rest"
        )


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
"""Ids to passages, as far as there are any."""


@dataclass(frozen=True)
class JudgedCollection:
    """A retrieval collection with judgements: query id to text, a lookup of passages, qrels.

    `excluded` are passages that a query's ranking must not hold when it is scored (BRIGHT's `excluded_ids`).
    `everything` iterates over all its passages, where that is possible.
    """

    name: str
    queries: Mapping[str, str]
    passages: Lookup
    qrels: Qrels
    excluded: Mapping[str, frozenset[str]] = field(default_factory=dict)
    everything: Callable[[], Iterable[Passage]] | None = None


def passage_of(title: str, text: str) -> Passage:
    """A passage with an id made of its content, so that equal paragraphs are one passage."""
    return Passage(sha256(f"{title}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()[:16], text, title)


def pooled(questions: Iterable[Question]) -> tuple[Passage, ...]:
    """The paragraphs of all the questions, each once, in order: the corpus of HippoRAG and IRCoT."""
    return tuple({passage.id: passage for question in questions for passage in question.passages}.values())


Each = Mapping[str, Mapping[str, float]]
"""Measure to question id to score."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over n questions with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean paired difference with its 95 % bootstrap interval and the p of a two-sided randomisation test."""

    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class SystemScores:
    """One system's scores. `differences` are from the system "none", empty without it and for itself.

    `cost` holds means. A question: the fields of `Cost` but `clipped` and `stored`, all 0 for a system that no model
    ordered, and retrieved, the passages found between hops, of a system that retrieves there. A reading (a question at
    one k): reader_prompt_tokens, reader_completion_tokens, reader_seconds, and reader_empty, the share without an
    answer string. Seconds are those of requests that no store answered, scaled up to all, and missing where there were
    none. `missing` are the ids of questions that lack an order or a reading, because something failed; they count as 0.
    """

    name: str
    each: Each
    estimates: Mapping[str, Estimate]
    differences: Mapping[str, Difference]
    cost: Mapping[str, float]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scores:
    """A run's scores by system. `groups`: "type" or "hops" to its value to system to measure to estimate."""

    systems: Mapping[str, SystemScores]
    groups: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Estimate]]]]
