"""What someone who never looks at a `Ranking` has to hear: logged as a warning, by the logger `rankr1_rag`.

For edges that hand on an order and no more. Knows rankings and nothing of those edges.

The facade: a query and its candidates in, a `Ranking` out; one at a time or any number at once.

Composes algorithm, votes, format and backend; the engine does the rest. Knows nothing of files, frameworks or servers.

What a caller may hand over as a query and as candidates, and what is refused. Knows the words and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from types import TracebackType
from typing import Any, Literal, Self

from rankr1_rag.backends import Backend
from rankr1_rag.concurrency import streams
from rankr1_rag.concurrency.event_loop import private_loop
from rankr1_rag.concurrency.per_loop import PerLane, PerLoop
from rankr1_rag.engine.comparison import Comparing
from rankr1_rag.engine.query import Budget, Retrieve, Stages
from rankr1_rag.engine.selection_loop import Engine
from rankr1_rag.errors import LoopError
from rankr1_rag.prompt import Format
from rankr1_rag.settings import Fusion, Plan, Votes, check_within, decide, one_of, vote
from rankr1_rag.types import Force, Passage, Query, Ranking, read_candidates, read_query

Item = tuple[str | Query, Iterable[Passage | str]]
"""A query with its candidates, first-stage best first."""
Asked = tuple[Query, tuple[Passage, ...], int | None, Retrieve | None]


@dataclass(frozen=True, eq=False)
class Reranker:
    """Reranks candidates with a reasoning model. Safe to share between threads, event loops and queries.

    * `backend`: a language model; None is the embedded CPU default (`OpenVINO()`), loaded on first use.
    * `k` ≥ 1: how many to select; None selects them all. `size`, 2..20: passages shown at once.
    * `algorithm`: a name in `ALGORITHMS`; by default "tournament", for a listwise format "window". "ballot", not exact,
      ranks at most `size` candidates in one round by `votes` answers sampled with a `temperature` above 0.
    * `format`: a `Format` or a name in `FORMATS`.
    * `votes` ≥ 1: each set is asked so often, in fresh orders drawn from `seed`; the majority wins. "auto" asks once,
      and four times more only where its label is not more probable than the best other by a half.
    * `probabilities`: ask for the probability of every label, up to three short requests a comparison; they are in
      the trace, and `Ranking.scores` are made of them. The backend must give the alternatives of a token.
    * `prefix_order`: show sets so that a prompt begins as an earlier one of the query did, likely winners last, not in
      first-stage order: fewer prompt tokens for a backend that caches prefixes, another place for the best. See
      bench/prefix.md.
    * `temperature` ≥ 0; 0 is greedy.
    * `reasoning_tokens` ≥ 0: the budget of a thought; one that runs over it is ended and its label forced.
    * `force`: "truncated" forces a label where the budget cut the text off, "unparsed" after every text without a
      valid answer, "never" as published.
    * `strict`: raise UnparsedError where an answer names no passage, instead of trusting the retriever, counted.
    * `on_failure`: "raise" a BackendError, or return the "first_stage" order with `Ranking.failure` set.
    * `hops` ≥ 1: stages. The first selects one candidate by the query, each later one another, shown those before it
      as known; the last fills up the k. For questions that need several passages; 1 judges by the query alone.
    * `retrieve`: finds more candidates between two stages, for the text of the query and of what was chosen last. What
      is new stands behind the others: see `Ranking.retrieved`.
    * `fusion`: the constant of reciprocal-rank fusion of the result with the order of retrieval, often 60; or "off".
    * `in_flight` ≥ 1: queries open at once. A backend that itself awaits `arank` of this reranker needs two.
    * `query_tokens`, `passage_tokens` ≥ 1: clip to so many tokens even where the context holds more.

    `format`, `size`, `reasoning_tokens`, `force`, `fusion` and the two limits default to what the table of checkpoints
    says
    of `backend.model`, else to "rank-r1-v0.1", 20, 1,024, "truncated", "off" and no limit: see `plan`. A wrong value is
    a ValueError or TypeError here and not later. The algorithms and sizes are those of arXiv 2503.06034.
    """

    backend: Backend | None = None
    k: int | None = 10
    size: int | None = None
    algorithm: str | None = None
    format: Format | str | None = None
    votes: Votes = 1
    seed: int = 0
    temperature: float = 0.0
    probabilities: bool = False
    prefix_order: bool = False
    reasoning_tokens: int | None = None
    force: Force | None = None
    strict: bool = False
    on_failure: Literal["raise", "first_stage"] = "raise"
    fusion: Fusion = None
    in_flight: int = 64
    query_tokens: int | None = None
    passage_tokens: int | None = None
    hops: int = 1
    retrieve: Retrieve | None = None

    def __post_init__(self) -> None:
        if self.k is not None:
            check_within("k", self.k, 1)
        check_within("in_flight", self.in_flight, 1)
        check_within("hops", self.hops, 1)
        self._check(self.retrieve)
        one_of("on_failure", self.on_failure, ("raise", "first_stage"))
        _ = self.plan

    @cached_property
    def plan(self) -> Plan:
        """What the settings left open, decided: backend, format, algorithm, size, thinking budget, limits of texts."""
        asked = self.format, self.algorithm, self.size, self.reasoning_tokens, self.force
        plan = decide(self.backend, *asked, self.query_tokens, self.passage_tokens, self.fusion)
        plan = vote(plan, self.votes, self.seed, self.temperature, self.probabilities, self.prefix_order)
        return replace(plan, hops=self.hops)

    def rank(
        self,
        query: str | Query,
        passages: Iterable[Passage | str],
        *,
        k: int | None = None,
        retrieve: Retrieve | None = None,
    ) -> Ranking:
        """Rerank the candidates, first-stage best first. Not from a coroutine on the private loop: LoopError.

        Strings become passages, their position the id. `k` ≥ 1 and `retrieve`: for this time. BackendError,
        UnparsedError as set, and whatever `retrieve` raises.
        """
        private_loop().refuse_own_thread()
        return private_loop().call(self._rank(*self._read(query, passages, k, retrieve)))

    async def arank(
        self,
        query: str | Query,
        passages: Iterable[Passage | str],
        *,
        k: int | None = None,
        retrieve: Retrieve | None = None,
    ) -> Ranking:
        """`rank`, from any event loop; cancelling it cancels its open comparisons."""
        return await private_loop().wait(self._rank(*self._read(query, passages, k, retrieve)))

    def rank_many(self, items: Iterable[Item], *, live: bool = False) -> Iterator[tuple[int, Ranking | Exception]]:
        """Rerank many: `(index, Ranking)` in order of completion, lazily, at most `in_flight` of them open or waiting.

        A query that fails comes back as its error and the others go on. If `items` raises, what is open is finished
        first. Leaving early cancels the rest. `items` is read in the caller's thread, between results; for items that
        come when they come (a pipe, a queue) `live=True` reads them in a thread of their own.
        """
        return (streams.live if live else streams.each)(self._outcome, items, self.in_flight)

    def arank_many(self, items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[tuple[int, Ranking | Exception]]:
        """`rank_many` on the caller's event loop, from a plain or an async iterable; an async one may wait."""
        return streams.aeach(self._outcome, items, self.in_flight)

    def close(self) -> None:
        """End what is open with a LoopError and close the backend, others' use of it included. Safe to call twice."""
        if private_loop().alive:
            private_loop().call(self._close())

    async def aclose(self) -> None:
        """`close`, from any event loop."""
        await private_loop().wait(self._close())

    async def _close(self) -> None:
        self.__dict__["_closed"] = True
        for task in tuple(self._tasks):
            task.cancel()
        await self.plan.backend.close()

    def _read(
        self,
        query: str | Query,
        passages: Iterable[Passage | str],
        k: int | None = None,
        retrieve: Retrieve | None = None,
    ) -> Asked:
        """What is to be ranked, how many of them to select, and what finds more."""
        retrieve = self._check(self.retrieve if retrieve is None else retrieve)
        return read_query(query), read_candidates(passages), self.k if k is None else check_within("k", k, 1), retrieve

    def _check(self, retrieve: Retrieve | None) -> Retrieve | None:
        if retrieve is not None and not callable(retrieve):
            raise TypeError(f"retrieve= is a {type(retrieve).__name__}, not a function of a text")
        if retrieve is not None and self.hops < 2:
            raise ValueError("retrieve= finds more between two stages, and hops=1 is a single one: give hops=2")
        return retrieve

    def _outcome(self, item: Item) -> Coroutine[Any, Any, Ranking | Exception]:
        try:
            query, passages = item
            return self._caught(*self._read(query, passages))
        except Exception as error:
            return streams.given(error)

    async def _caught(self, *asked: Any) -> Ranking | Exception:  # noqa: ANN401
        try:
            return await self._rank(*asked)
        except Exception as error:
            return error

    async def _rank(
        self, query: Query, candidates: tuple[Passage, ...], k: int | None, retrieve: Retrieve | None
    ) -> Ranking:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            self._refuse_closed()
            if len(candidates) < 2 and not (candidates and retrieve):
                return Ranking(query, candidates, tuple(range(len(candidates))), k=len(candidates))
            async with self._gates.get().get():
                stages = Stages(self._engine, self.plan, self._budget, query, candidates, k, retrieve)
                return await stages.ranking(self.plan.fusion, or_first_stage=self.on_failure == "first_stage")
        except asyncio.CancelledError:
            self._refuse_closed()
            raise
        finally:
            self._tasks.discard(task)

    def _refuse_closed(self) -> None:
        if "_closed" in self.__dict__:
            raise LoopError("this reranker was closed: make a new one")

    @cached_property
    def _budget(self) -> Budget:
        plan = self.plan
        thinks = plan.reasoning_tokens * plan.format.reasoning
        return Budget(plan.format, plan.size, thinks, plan.query_tokens, plan.passage_tokens)

    @cached_property
    def _engine(self) -> Engine:
        plan = self.plan
        comparing = Comparing(
            plan.backend,
            plan.format,
            plan.reasoning_tokens,
            plan.force,
            self.strict,
            self.temperature,
            plan.seed,
            plan.probabilities or plan.votes == "auto",
        )
        return Engine(comparing, auto=plan.votes == "auto")

    @cached_property
    def _gates(self) -> PerLoop[PerLane[asyncio.Semaphore]]:
        return PerLoop(partial(PerLane, partial(asyncio.Semaphore, self.in_flight)))

    @cached_property
    def _tasks(self) -> set[asyncio.Task[Any]]:
        """What is open now, on the private loop."""
        return set()

    def __getstate__(self) -> dict[str, Any]:
        """Settings only: a copy in another process makes its own plan and counts its own open queries."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.aclose()


_log = logging.getLogger("rankr1_rag")


def notice(ranking: Ranking) -> None:
    """Warn where the model failed, or where at least half of its answers named no passage."""
    cost, query = ranking.cost, ranking.query.text
    if ranking.failure:
        _log.warning("query %.100r stays in first-stage order: %s", query, ranking.failure)
    elif cost.unparsed and 2 * cost.unparsed >= cost.comparisons:
        last = next(one.completion.text for one in reversed(ranking.trace) if not one.parsed)
        _log.warning(
            "query %.100r: %d of %d answers name no passage, the retriever was trusted there; the last ends %r. "
            "force='unparsed' asks such a model for its label once more",
            query,
            cost.unparsed,
            cost.comparisons,
            last[-100:],
        )
