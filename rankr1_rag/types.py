"""The values of the project, frozen and picklable: queries, passages, completions, comparisons, rankings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Literal

from rankr1_rag import scoring

Message = Mapping[str, str]
"""One chat message: `{"role": "system" | "user" | "assistant", "content": "…"}`.

The role "raw" is that of a whole prompt, without a chat template.
"""


@dataclass(frozen=True, slots=True)
class Query:
    """The information need. `id` is "" if it has none; `instruction` says more about what is wanted, see the guide."""

    id: str
    text: str
    instruction: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Passage:
    """A unit of text the model can choose. Ids need not be unique: a ranking is made of positions."""

    id: str
    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of a completion with its log-probability and, if requested, the best alternatives."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """The result of a backend: the text, its cost in tokens and the reason why it ended.

    `cached_tokens` are the part of the prompt that was not computed again. `finish_reason` is "stop" if the model ended
    by itself, at a stop string or with a choice, "length" if `max_tokens` cut it off; servers may have other words.
    `logprobs` has one entry a token, if requested. `stored`: from a store, with the tokens of the original request.
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
    reasoning, the text added to force an answer (`forced`), the label; its tokens are summed. `parsed` is False if the
    text names no passage of the set: then the answer is the set's first-stage best. `lenient`: the text names one, in
    another form than that of the format. `known` are the positions that
    were shown as known. `round` counts from 0. `reasoning_tokens` are part of the completion. `probabilities` of the
    labels, along `set`, sum 1, if requested. `scores` along `set`, from 0 to 1 and None where there is none, if the
    model gives scores; then `answer` is by score.
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
    lenient: bool = False
    scores: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a ranking. Costs add up: `sum(costs, Cost())`; rounds and seconds then add up too.

    `passages_read` counts a passage each time it is shown, to choose from or as known; `cached_tokens` are part of
    `prompt_tokens`, `reasoning_tokens` of `completion_tokens`; `seconds` is wall time from the start of the query to
    its ranking, without the time in which other queries had all slots of the model; `lenient` counts answers in another
    form than that of the format; `clipped` counts texts that were cut to fit, once a query each, and `clipped_tokens`
    what they lost; `stored` counts comparisons from a store, whose tokens are counted as if they were requested now.
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
    lenient: int = 0
    clipped_tokens: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __repr__(self) -> str:
        return f"Cost({', '.join(f'{one.name}={round(getattr(self, one.name), 2)}' for one in fields(self))})"


Reason = Literal["deadline", "budget_tokens", "ended"]
"""The option whose limit a query reached, or that `Reranker.end_within` ended it."""


@dataclass(frozen=True, slots=True)
class Truncated:
    """Why a ranking ended before all was asked, and what was left to ask.

    `limit` is the number of seconds or tokens that it had. Of the k passages wanted, those in `Ranking.selected` are
    final, `selected` of them; the others are the best by what was answered. `unanswered` are the sets of the last round
    that have no answer, or not all votes; the sets of later rounds depend on those.
    """

    reason: Reason
    limit: float
    selected: int = 0
    unanswered: tuple[tuple[int, ...], ...] = ()

    def __str__(self) -> str:
        kind = "{:,.0f} tokens" if self.reason == "budget_tokens" else "{:g} s"
        n = len(self.unanswered)
        left = f", {n} comparison{'s' if n > 1 else ''} of its round without an answer" if n else ""
        return f"ended after {kind.format(self.limit)}: {self.selected} selected{left}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a passage has its rank: `comparison` is the last one it won, or else the last one it lost, or None.

    Of several votes that made it win a set, `comparison` is the last that names it. `won` and `lost` count its
    comparisons. `selected` is False for a passage that the model did not select: it keeps its first-stage order or, in
    a ranking that ended early, has its place in the best order so far. `failure` is the error for which the whole
    ranking is the first-stage order. `score` is the mean of the model's own scores, from 0 to 1, None if there is none;
    then `comparison` is the last with a score.
    """

    rank: int
    position: int
    passage: Passage
    selected: bool
    won: int
    lost: int
    comparison: Comparison | None
    failure: str | None = None
    score: float | None = None

    @property
    def reasoning(self) -> str:
        """The model's reasoning in that comparison; "" if there is none."""
        return self.comparison.reasoning if self.comparison else ""

    def __str__(self) -> str:
        name = self.passage.title or f"passage {self.passage.id or self.position}"
        if self.failure is not None:
            return f"{self.rank}. {name}: in first-stage order, because the model failed: {self.failure}"
        if self.comparison is None:
            return f"{self.rank}. {name}: the model never saw it"
        record = f"first in {self.won} of {self.won + self.lost} comparisons"
        if not self.comparison.parsed:
            record += ", where the model gave no answer and the retriever was trusted"
        elif self.comparison.forced:
            record += ", with a label that had to be forced"
        if self.score is not None:
            record = f"score {self.score:.2f}"
        elif self.comparison.scores:
            record = "without a score"
        if not self.selected:
            record += "; not selected"
        return f"{self.rank}. {name}: {record}" + (f"\n   {self.reasoning}" if self.reasoning else "")


@dataclass(frozen=True)
class Ranking:
    """The candidates reordered: the `k` selected, then the rest in first-stage order; every candidate exactly once.

    A model that gives scores has scored all candidates: then the rest is ordered by them, too.

    `order` holds positions, best first. `trace` holds every comparison, in the order asked. `failure` is the error for
    which `on_failure="first_stage"` returned the first-stage order; else None. With fusion, `order` is the fused order
    and `chosen` holds the k selected, best first. The last `retrieved` candidates are not of the first stage: they were
    found between two hops. `truncated` says why the ranking ended early, at a deadline or token budget; else None;
    then `order` is the best one so far: what was selected, then the first-stage order as the answers changed it.
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
    clipped_tokens: int = 0
    truncated: Truncated | None = None

    @cached_property
    def score_meaning(self) -> scoring.Meaning:
        """The meaning of `scores`: "ordinal" the order only, "probability" that of the label, "votes" their share.

        "score": the mean of the model's own scores of the passage, which can be compared between queries.
        """
        is_whole = self.chosen is None and self.failure is None and self.truncated is None
        return scoring.meaning(self.trace) if is_whole else "ordinal"

    @property
    def selected(self) -> tuple[int, ...]:
        """The positions that the model selected, best first: the k or, if the ranking ended early, fewer."""
        if self.failure is not None:
            return ()
        n = self.k if self.truncated is None else self.truncated.selected
        return (self.order if self.chosen is None else self.chosen)[:n]

    @cached_property
    def passages(self) -> tuple[Passage, ...]:
        """The candidates along `order`."""
        return tuple(self.candidates[position] for position in self.order)

    @cached_property
    def scores(self) -> tuple[float, ...]:
        """Strictly decreasing along `order`, in (0, 1], distinct as float32 too: see `score_meaning`."""
        ordinal = self.score_meaning == "ordinal"
        chosen = self.order if self.score_meaning == "score" else self.order[: self.k]
        return scoring.scores(len(self.order), chosen, () if ordinal else self.trace)

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
            lenient=sum(comparison.lenient for comparison in self.trace),
            clipped_tokens=self.clipped_tokens,
        )

    def explain(self, rank: int) -> Explanation:
        """The reasoning that put a passage at this rank, counted from 1. IndexError if there is no such rank."""
        if not 1 <= rank <= len(self.order):
            raise IndexError(f"rank {rank} is not in 1..{len(self.order)}")
        position = self.order[rank - 1]
        outcomes, chosen = self._outcomes
        return Explanation(
            rank=rank,
            position=position,
            passage=self.candidates[position],
            selected=position in chosen,
            won=outcomes.won[position],
            lost=outcomes.seen[position] - outcomes.won[position],
            comparison=outcomes.deciding(position),
            failure=self.failure,
            score=outcomes.means.get(position),
        )

    @cached_property
    def _outcomes(self) -> tuple[scoring.Outcomes[Comparison], frozenset[int]]:
        """What `explain` needs for any rank: the outcomes of the trace, and the positions that were selected."""
        return scoring.Outcomes(self.trace), frozenset(self.selected)

    def log_problems(self) -> bool:
        """Log a warning if the model failed, or if at least half of the answers in its trace name no passage.

        True if there was something to log. `Reranker.rank` and `arank` do so; `rank_many` for the first such ranking:
        of the others, look at `failure` and `cost.unparsed`.
        """
        unparsed = [comparison for comparison in self.trace if not comparison.parsed]
        if not (self.failure or (unparsed and 2 * len(unparsed) >= len(self.trace))):
            return False
        log, query = logging.getLogger("rankr1_rag"), self.query.text
        if self.failure:
            failure = self.failure.encode("utf-8", "backslashreplace").decode()  # logs are written as UTF-8
            log.warning("query %.100r keeps the first-stage order: %s", query, failure)
        else:
            log.warning(
                "query %.100r: %d of %d answers name no passage, so the first-stage order decided; the last answer "
                "ends %r. %s",
                query,
                len(unparsed),
                len(self.trace),
                unparsed[-1].completion.text[-100:],
                "Raise reasoning_tokens=, or use another model: this one was asked for a label alone"
                if unparsed[-1].forced
                else "force='unparsed' requests the label of such a model once more",
            )
        return True

    def __len__(self) -> int:
        return len(self.order)

    def __repr__(self) -> str:
        failure = f", failure={self.failure!r}" if self.failure else ""
        failure += f", {self.truncated!r}" if self.truncated else ""
        return f"Ranking({self.query!r:.200}, order={list(self.order)!r:.120}, k={self.k}, {self.cost}{failure})"


Clip = Literal["window", "head"]
"""Which part is shown of a passage that does not fit: the part that shares most with the query, or its beginning."""

Force = Literal["truncated", "unparsed", "never"]
"""When a label is forced: if the budget cut the text off, after every text without an answer, or never."""


@dataclass(frozen=True, slots=True)
class ComparisonOpened:
    """The model is asked about a set, with these positions shown as known. `number` counts from 0 in each query."""

    number: int
    round: int
    set: tuple[int, ...]
    known: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ComparisonText:
    """A piece of what the model writes, as it comes, from a backend that streams: the reasoning, then the answer.

    It begins at character `start` of the text; a `start` that was there before replaces what followed it, as a request
    was tried again. An answer that is forced, or found in a store, comes with ComparisonAnswered only.
    """

    number: int
    start: int
    text: str


@dataclass(frozen=True, slots=True)
class ComparisonAnswered:
    """The comparison of this number is complete."""

    number: int
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class OrderSoFar:
    """The best order known after an answer: positions of all candidates, with fusion fused.

    The first `selected` are final: none with fusion. Of many candidates it comes once a round of comparisons.
    """

    order: tuple[int, ...]
    selected: int


@dataclass(frozen=True, slots=True)
class RankingDone:
    """The last event of a query. A comparison that was opened and never answered was cancelled."""

    ranking: Ranking


Event = ComparisonOpened | ComparisonText | ComparisonAnswered | OrderSoFar | RankingDone
"""What happens while a query is ranked."""

OnEvent = Callable[[Event], object]
"""Called with each event of a query on the private event loop, in order: it must be quick and must not block.

For another event loop: `lambda event: loop.call_soon_threadsafe(queue.put_nowait, event)`. Its exception is that of
the query.
"""
