"""The words of the project as values: what goes in, what is asked, what comes out.

Frozen and picklable. Knows nothing of prompts, models, algorithms or files.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

from rankr1_rag import scoring

Message = Mapping[str, str]
"""One chat message: `{"role": "system" | "user" | "assistant", "content": "…"}`."""


@dataclass(frozen=True, slots=True)
class Query:
    """The information need. `id` is "" where nobody needs one."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A unit of text the model can choose. Ids need not be unique: a ranking is made of positions."""

    id: str
    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of a completion with its log-probability, and the best alternatives where they were asked for."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What a backend gave: the text, the tokens it cost (`cached_tokens` of the prompt were not computed anew) and
    why it ended.

    `finish_reason` is "stop" when the model ended by itself, at a stop string or with a choice, "length" when
    `max_tokens` cut it off; servers may have words of their own beside these. `logprobs` is one entry a token, if
    asked for. `stored` is True where nothing was asked: the tokens are what it cost when it was.
    """

    text: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "stop"
    logprobs: tuple[TokenLogprob, ...] | None = None
    stored: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """One set shown to the model, with its answer and its completion.

    `set` holds positions in shown order, `answer` positions best first. `completion` is the whole transcript: the
    thought, whatever was added to make the model answer (`forced`), the label; its tokens are summed. `parsed` is
    False where the text named no passage of the set and the answer is the retriever's own: the set's first-stage
    best. `known` are positions that were shown as known already. `round` counts from 0. `reasoning_tokens` of the
    completion are thought. `probabilities` of the labels, along `set`, sum 1, where they were asked for.
    """

    set: tuple[int, ...]
    answer: tuple[int, ...]
    completion: Completion
    round: int
    reasoning: str = ""
    parsed: bool = True
    forced: bool = False
    sample: int = 0
    reasoning_tokens: int = 0
    probabilities: tuple[float, ...] | None = None
    known: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Cost:
    """What a ranking cost. Costs add up: `sum(costs, Cost())`; rounds and seconds then add up too.

    `passages_read` counts a passage each time it is shown, to choose from or as known; `cached_tokens` are part of
    `prompt_tokens`, `reasoning_tokens` of `completion_tokens`; `seconds` is wall time from the opening of the query to
    its
    ranking; `clipped` counts texts that were cut to fit, once a query each; `stored` counts comparisons that a store
    answered, whose tokens are counted as if they were asked now.
    """

    comparisons: int = 0
    rounds: int = 0
    passages_read: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    unparsed: int = 0
    forced: int = 0
    clipped: int = 0
    stored: int = 0
    seconds: float = 0.0
    reasoning_tokens: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a passage stands at a rank: `comparison` is the last one it won, or else the last one it lost, or None.

    Of several votes on a set it is the last that named it, where they made it win.

    `won` and `lost` count its comparisons. `selected` is False for what merely keeps its first-stage order.
    """

    rank: int
    position: int
    passage: Passage
    selected: bool
    won: int
    lost: int
    comparison: Comparison | None

    @property
    def reasoning(self) -> str:
        """The model's thought in that comparison; "" where it gave none or was not asked."""
        return self.comparison.reasoning if self.comparison else ""

    def __str__(self) -> str:
        name = self.passage.title or self.passage.id or f"position {self.position}"
        if self.comparison is None:
            return f"{self.rank}. {name}: the model never saw it"
        record = f"first in {self.won} of {self.won + self.lost} comparisons"
        if not self.comparison.parsed:
            record += ", where the model gave no answer and the retriever was trusted"
        elif self.comparison.forced:
            record += ", with a label that had to be forced"
        if not self.selected:
            record += "; not selected"
        return f"{self.rank}. {name}: {record}" + (f"\n   {self.reasoning}" if self.reasoning else "")


@dataclass(frozen=True)
class Ranking:
    """The candidates reordered: the `k` selected, then the rest in first-stage order; every candidate exactly once.

    `order` holds positions, best first. `trace` holds every comparison, in the order asked. `failure` is the reason why
    this is the first-stage order and no more, where `on_failure="first_stage"` asked for that; else None. Where the
    result was fused with the first-stage order, `order` is the fused one and `chosen` holds the k selected, best first.
    The last `retrieved` candidates are none of the first stage: they were found between two stages of the reranking.
    """

    query: Query
    candidates: tuple[Passage, ...]
    order: tuple[int, ...]
    k: int
    trace: tuple[Comparison, ...] = ()
    clipped: int = 0
    seconds: float = 0.0
    failure: str | None = None
    chosen: tuple[int, ...] | None = None
    retrieved: int = 0

    @cached_property
    def score_meaning(self) -> scoring.Meaning:
        """What `scores` say: "ordinal" the order and nothing more, "probability" the label's, "votes" their share."""
        return "ordinal" if self.chosen is not None or self.failure is not None else scoring.meaning(self.trace)

    @cached_property
    def passages(self) -> tuple[Passage, ...]:
        """The candidates along `order`."""
        return tuple(self.candidates[position] for position in self.order)

    @cached_property
    def scores(self) -> tuple[float, ...]:
        """Strictly decreasing along `order`, in (0, 1], distinct as float32 too: see `score_meaning`, `evidence`."""
        ordinal = self.score_meaning == "ordinal"
        return scoring.scores(len(self.order), self.order[: self.k], () if ordinal else self.trace)

    @cached_property
    def cost(self) -> Cost:
        """The sum over the trace."""
        completions = [comparison.completion for comparison in self.trace]
        return Cost(
            comparisons=len(self.trace),
            rounds=len({comparison.round for comparison in self.trace}),
            passages_read=sum(len(comparison.set) + len(comparison.known) for comparison in self.trace),
            prompt_tokens=sum(completion.prompt_tokens for completion in completions),
            cached_tokens=sum(completion.cached_tokens for completion in completions),
            completion_tokens=sum(completion.completion_tokens for completion in completions),
            unparsed=sum(not comparison.parsed for comparison in self.trace),
            forced=sum(comparison.forced for comparison in self.trace),
            clipped=self.clipped,
            stored=sum(completion.stored for completion in completions),
            seconds=self.seconds,
            reasoning_tokens=sum(comparison.reasoning_tokens for comparison in self.trace),
        )

    def explain(self, rank: int) -> Explanation:
        """The reasoning that put a passage at this rank, counted from 1. IndexError where there is no such rank."""
        if not 1 <= rank <= len(self.order):
            raise IndexError(f"rank {rank} is not in 1..{len(self.order)}")
        position = self.order[rank - 1]
        seen = [comparison for comparison in self.trace if position in comparison.set]
        won = [comparison for comparison in seen if comparison.answer[0] == position]
        lost = [comparison for comparison in seen if comparison.answer[0] != position]
        return Explanation(
            rank=rank,
            position=position,
            passage=self.candidates[position],
            selected=position in (self.order[: self.k] if self.chosen is None else self.chosen) and not self.failure,
            won=len(won),
            lost=len(lost),
            comparison=scoring.deciding(position, self.trace),
        )

    def log_problems(self) -> None:
        """Log a warning if the model failed, or if at least half of its answers name no passage.

        For callers that return an order and drop the ranking.
        """
        if not (self.failure or (self.cost.unparsed and 2 * self.cost.unparsed >= self.cost.comparisons)):
            return
        log, query = logging.getLogger("rankr1_rag"), self.query.text
        if self.failure:
            log.warning("query %.100r keeps the first-stage order: %s", query, self.failure)
        else:
            last = next(one.completion.text for one in reversed(self.trace) if not one.parsed)
            log.warning(
                "query %.100r: %d of %d answers name no passage, so the first-stage order decided; the last answer "
                "ends %r. force='unparsed' requests the label of such a model once more",
                query,
                self.cost.unparsed,
                self.cost.comparisons,
                last[-100:],
            )

    def __len__(self) -> int:
        return len(self.order)

    def __repr__(self) -> str:
        failure = f", failure={self.failure!r}" if self.failure else ""
        return f"Ranking({self.query!r:.200}, order={list(self.order)!r:.120}, k={self.k}, {self.cost}{failure})"


Force = Literal["truncated", "unparsed", "never"]
"""When a label is forced: where the budget cut the text off, after every text without an answer, or never."""
