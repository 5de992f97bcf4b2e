"""The facade: a query and its candidates in, a `Ranking` out; one at a time or any number at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from types import TracebackType
from typing import Any, Literal, Self

from rankr1_rag.backends import Backend
from rankr1_rag.concurrency import streams
from rankr1_rag.concurrency.event_loop import PerLoop, private_loop
from rankr1_rag.engine.query import Budget, QueryRun, Retrieve
from rankr1_rag.engine.selection_loop import Comparer, SelectionLoop
from rankr1_rag.errors import LoopError
from rankr1_rag.prompt import Format
from rankr1_rag.settings import Fusion, Plan, Votes, check_within, decide, one_of, vote
from rankr1_rag.types import Force, Passage, Query, Ranking

Item = tuple[str | Query, Iterable[Passage | str]]
"""A query with its candidates, first-stage best first."""


@dataclass(slots=True, eq=False)
class Session:
    """The state of a reranker in this process: what runs its queries, which are open, whether it was closed."""

    loop: SelectionLoop
    gates: PerLoop[asyncio.Semaphore]
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    closed: bool = False


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
        """Rerank the candidates, first-stage best first. LoopError in a coroutine on the private loop.

        Strings become passages, their position the id. `k` ≥ 1 and `retrieve` apply to this query only. Raises
        BackendError and UnparsedError as the settings say, and whatever `retrieve` raises.
        """
        return private_loop().call(self._rank(self._read(query, passages, k, retrieve)))

    async def arank(
        self,
        query: str | Query,
        passages: Iterable[Passage | str],
        *,
        k: int | None = None,
        retrieve: Retrieve | None = None,
    ) -> Ranking:
        """`rank`, from any event loop; cancelling it cancels its open comparisons."""
        return await private_loop().wait(self._rank(self._read(query, passages, k, retrieve)))

    def rank_many(self, items: Iterable[Item], *, live: bool = False) -> Iterator[tuple[int, Ranking | Exception]]:
        """Rerank many: `(index, Ranking)` in order of completion, lazily, at most `in_flight` of them open or waiting.

        The result of a query that fails is its error; the others continue. If `items` raises, open queries are
        completed first. Leaving early cancels the rest. `items` is read in the caller's thread, between results;
        `live=True` reads it in a thread of its own, for items that arrive over time, from a pipe or a queue.
        """
        return (streams.live if live else streams.each)(self._outcome, items, self.in_flight)

    def arank_many(self, items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[tuple[int, Ranking | Exception]]:
        """`rank_many` on the caller's event loop, from a plain or an async iterable; an async one may wait."""
        return streams.aeach(self._outcome, items, self.in_flight)

    def close(self) -> None:
        """End open queries with a LoopError and close the backend, for its other users too. Safe to call twice."""
        if private_loop().alive:
            private_loop().call(self._close())

    async def aclose(self) -> None:
        """`close`, from any event loop."""
        await private_loop().wait(self._close())

    async def _close(self) -> None:
        self._session.closed = True
        for task in tuple(self._session.tasks):
            task.cancel()
        await self.plan.backend.close()

    def _read(
        self,
        query: str | Query,
        passages: Iterable[Passage | str],
        k: int | None = None,
        retrieve: Retrieve | None = None,
    ) -> QueryRun:
        k = self.k if k is None else check_within("k", k, 1)
        retrieve = self.retrieve if retrieve is None else self._check(retrieve)
        return QueryRun(query, passages, k, retrieve)

    def _check(self, retrieve: Retrieve | None) -> Retrieve | None:
        if retrieve is not None and not callable(retrieve):
            raise TypeError(f"retrieve= must be a function of a text (got a {type(retrieve).__name__})")
        if retrieve is not None and self.hops < 2:
            raise ValueError("retrieve= needs hops >= 2 (got hops=1)")
        return retrieve

    def _outcome(self, item: Item) -> Coroutine[Any, Any, Ranking | Exception]:
        """Read an item here and now; the coroutine that ranks it returns an error of either instead of raising it."""
        run: QueryRun | Exception
        try:
            query, passages = item
            run = self._read(query, passages)
        except Exception as error:
            run = error

        async def outcome() -> Ranking | Exception:
            if isinstance(run, Exception):
                return run
            try:
                return await self._rank(run)
            except Exception as error:
                return error

        return outcome()

    async def _rank(self, run: QueryRun) -> Ranking:
        session, task = self._session, asyncio.current_task()
        assert task is not None
        closed = LoopError("this reranker was closed: make a new one")
        session.tasks.add(task)
        try:
            if session.closed:
                raise closed
            if len(run.candidates) < 2 and not (run.candidates and run.retrieve):
                n = len(run.candidates)
                return Ranking(run.query, run.candidates, tuple(range(n)), k=n)
            async with session.gates.get():
                return await session.loop.run(run)
        except asyncio.CancelledError:
            if session.closed:
                raise closed from None
            raise
        finally:
            session.tasks.discard(task)

    @cached_property
    def _session(self) -> Session:
        """Used on the private loop only."""
        plan = self.plan
        thinks = plan.reasoning_tokens * plan.format.reasoning
        budget = Budget(plan.format, plan.size, thinks, plan.query_tokens, plan.passage_tokens)
        comparer = Comparer(plan, self.temperature, self.strict)
        return Session(
            loop=SelectionLoop(plan, comparer, budget, self.on_failure),
            gates=PerLoop(partial(asyncio.Semaphore, self.in_flight), per_caller=True),
        )

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
