"""A finished run as values: what each row ranked and answered, for the score and for the report.

A *row* is one way to order or choose what the reader sees: "none" (first-stage order), "oracle", "random", "dense",
"cross-encoder", "rank-r1"; "gold" and "no-context" have no order, only answers. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rankr1_eval.types import Question
from rankr1_rag.types import Cost, Passage, Ranking


@dataclass(frozen=True, slots=True)
class Read:
    """What the reader said: the answer string taken from it ("" where there was none), its whole text, the cost.

    `stored` is True where it was not asked, and `seconds` therefore say nothing.
    """

    answer: str
    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    stored: bool = False


@dataclass(frozen=True)
class Row:
    """One row: `orders`, question id to passage ids, best first (empty for rows without an order); `reads`, k to
    question id to what the reader said of the first k; `rankings` where a reasoning reranker made the order; `costs`
    of the reranking by question id, `Cost.seconds` being wall time of the stage; `retrieved`, where the reranker
    retrieves again between its hops, question id to how many passages of the order are no candidates.
    """

    name: str
    orders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reads: Mapping[int, Mapping[str, Read]] = field(default_factory=dict)
    rankings: Mapping[str, Ranking] = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    retrieved: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One evaluation: its questions, the passages by id, the rows in the order asked for ("none" first where it is).

    `settings` is what it was made with, for the reader of the report. Support recall is told at `cutoffs` too.
    """

    name: str
    dataset: str
    questions: tuple[Question, ...]
    passages: Mapping[str, Passage]
    candidates: int
    rows: tuple[Row, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    cutoffs: tuple[int, ...] = ()
