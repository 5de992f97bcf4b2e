"""The facade: a query and its candidates in, a `Ranking` out; one at a time or any number at once."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Set
from contextlib import aclosing, closing
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from types import TracebackType
from typing import Any, Self

from rankr1_rag.backends import Backend
from rankr1_rag.concurrency import streams
from rankr1_rag.concurrency.event_loop import ENDING, PerLoop, as_exception, contained, may_be_ctrl_c, private_loop
from rankr1_rag.engine.limits import Limits
from rankr1_rag.engine.query import FEWEST, Budget, QueryRun, Retrieve, Slots, Turn
from rankr1_rag.engine.selection_loop import Comparer, SelectionLoop
from rankr1_rag.errors import LoopError
from rankr1_rag.scoring import Trend
from rankr1_rag.selection import SCORES
from rankr1_rag.settings import MODEL, SELECTION, Plan, Settings, declare, options, with_options
from rankr1_rag.telemetry import chat, traced
from rankr1_rag.types import OnEvent, Passage, Query, Ranking, RankingDone

Candidate = Passage | str | tuple[Passage | str, float | None]
"""A passage, its text, or either with its first-stage score."""

Item = tuple[str | Query, Iterable[Candidate]]
"""A query with its candidates, first-stage best first."""

LARGE_TRACE = 1_000
"""Comparisons from which on scores are computed in a thread, as they would block an event loop for milliseconds."""

AT_DEADLINE = 0.01
"""Seconds that abandoned tasks on the caller's event loop have to end before their caller, if there is a deadline."""

REMEDY = "if they are distances, use distances=True"
CLOSED = "this reranker was closed: make a new one"
log = logging.getLogger("rankr1_rag")

Result = tuple[int, Ranking | Exception]
"""The position of an item, and its ranking or the error of it."""


@dataclass(slots=True, eq=False)
class Session:
    """The state of a reranker in this process: what runs its queries, which are open, whether it was closed."""

    loop: SelectionLoop
    gates: PerLoop[asyncio.Semaphore]
    slots: PerLoop[Slots] | None
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    limits: set[Limits] = field(default_factory=set)
    closed: bool = False


@with_options
@dataclass(frozen=True, eq=False)
class Reranker(Settings):
    """Reranks candidates with a reasoning model. Safe to share between threads, event loops and queries.

    `Reranker(backend, k=5, …)` takes the options below; `k=None` selects all candidates. `plan` holds what is in force,
    after the table of checkpoints filled in what was left open. A wrong option is a ValueError or TypeError here and
    not later. Algorithms and set sizes are those of arXiv 2503.06034; docs/options.md says more about each option.
    """

    backend: Backend | None = declare(
        None, "Language model that is asked", MODEL, "the embedded model, on the CPU", live=True
    )
    retrieve: Retrieve | None = declare(
        None,
        "Function of a text that finds more candidates between two hops; takes hops=2 or more",
        SELECTION,
        "none",
        live=True,
        kw_only=True,
    )

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        if self._check(self.retrieve) is not None and self.k == 1:
            raise ValueError("retrieve= needs k >= 2 (got k=1): with one passage to select there is no second hop")
        _ = self.plan

    @cached_property
    def plan(self) -> Plan:
        """The options in force: backend, format, algorithm, size, reasoning budget, limits of texts and the others."""
        backend = self.backend
        if backend is None:
            from rankr1_rag.backends.openvino import OpenVINO

            backend = OpenVINO()
        if isinstance(backend, type) or not callable(getattr(backend, "complete", None)):
            raise TypeError(f"backend={backend!r:.100} is no backend: use rankr1_rag.connect.connect(model=…, …)")
        return self.resolved(backend)

    def rank(
        self,
        query: str | Query,
        passages: Iterable[Candidate],
        *,
        k: int | None = None,
        retrieve: Retrieve | None = None,
        ordered: bool | None = None,
        deadline: float | None = None,
        instruction: str | None = None,
        on_event: OnEvent | None = None,
    ) -> Ranking:
        """Rerank the candidates, first-stage best first. LoopError in a coroutine on the private loop.

        Strings become passages, their position the id. Pairs of a passage and its first-stage score are checked against
        their order; with `distances` they are sorted, the least first, in the result too. `k` ≥ 1, `retrieve`,
        `ordered`, `deadline` and `instruction`, which says more about what is wanted, apply to this query only. At the
        deadline, seconds from now, open comparisons are cancelled and the ranking is the best order so far: see
        `Ranking.truncated`. `on_event` is called with each event of the query as it happens: see
        `rankr1_rag.types.Event`. Raises BackendError and UnparsedError as the settings say, and whatever `retrieve` and
        `on_event` raise.
        """
        run = self._read(query, passages, k, retrieve, ordered, deadline, instruction, on_event)
        ranking = private_loop().call(self._rank(run))
        if ranking.failure or not all(one.parsed for one in ranking.trace):
            ranking.log_problems()
        return ranking

    async def arank(
        self,
        query: str | Query,
        passages: Iterable[Candidate],
        *,
        k: int | None = None,
        retrieve: Retrieve | None = None,
        ordered: bool | None = None,
        deadline: float | None = None,
        instruction: str | None = None,
        on_event: OnEvent | None = None,
    ) -> Ranking:
        """`rank`, from any event loop; cancelling it cancels its open comparisons."""
        with contained():
            run = self._read(query, passages, k, retrieve, ordered, deadline, instruction, on_event)
            in_time = run.limits is not None and run.limits.seconds is not None
            ranking = await private_loop().wait(self._rank(run), AT_DEADLINE if in_time else ENDING)
            if ranking.failure or not all(one.parsed for one in ranking.trace):
                ranking.log_problems()
            return ranking

    def rank_many(self, items: Iterable[Item], *, live: bool = False, progress: bool = False) -> Iterator[Result]:
        """Rerank many: `(index, Ranking)` in order of completion, lazily, at most `in_flight` of them open or waiting.

        The result of a query that fails is its error; the others continue. Whatever `items` raises is raised after the
        open queries are complete. Leaving early cancels the rest and closes `items`. `items` is read in the caller's
        thread, between results; `live=True` reads it in a thread of its own, for items that arrive over time, from a
        pipe or a queue. `progress=True` shows a bar on stderr: finished queries, comparisons, failures, time.
        """
        if not isinstance(items, Iterable):
            raise TypeError(f"items={items!r:.100}: pass pairs (query, passages)")
        results = (streams.live if live else streams.each)(self._outcome, items, self.plan.in_flight)
        return with_bar(results, items) if progress else results

    def arank_many(
        self, items: Iterable[Item] | AsyncIterable[Item], *, progress: bool = False
    ) -> AsyncIterator[Result]:
        """`rank_many` on the caller's event loop: use it with `async for`. `items` may be an async iterable, too."""
        results = streams.aeach(self._outcome, items, self.plan.in_flight)
        return awith_bar(results, items) if progress else results

    def close(self) -> None:
        """End open queries with a LoopError and close the backend, for its other users too. Safe to call twice."""
        if private_loop().alive:
            private_loop().call(self._close())

    async def aclose(self) -> None:
        """`close`, from any event loop."""
        await private_loop().wait(self._close())

    async def end_within(self, seconds: float) -> None:
        """Give all open queries with a deadline, a token budget or `on_event` at most these seconds more."""

        async def shorten() -> None:
            for limits in self._session.limits:
                limits.shorten(seconds)

        await private_loop().wait(shorten())

    async def _close(self) -> None:
        try:
            self._session.closed = True
            for task in tuple(self._session.tasks):
                task.cancel()
        finally:
            await self.plan.backend.close()

    def _read(
        self,
        query: str | Query,
        passages: Iterable[Candidate],
        k: int | None = None,
        retrieve: Retrieve | None = None,
        ordered: bool | None = None,
        deadline: float | None = None,
        instruction: str | None = None,
        on_event: OnEvent | None = None,
    ) -> QueryRun:
        limits, allowed = None, (deadline, self.deadline, self.budget_tokens, on_event)
        if allowed != (None, None, None, None):
            options(Reranker)["deadline"].check(deadline)
            if on_event is not None and not callable(on_event):
                raise TypeError(f"on_event={on_event!r:.100} is no function: pass a function of an event")
            limits = Limits(self.deadline if deadline is None else deadline, self.budget_tokens, on_event)
        if k is not None:
            options(Reranker)["k"].check(k)
        if instruction is not None:
            options(Reranker)["instruction"].check(instruction)
        retrieve = self.retrieve if retrieve is None else self._check(retrieve)
        ordered = self.ordered if ordered is None else ordered
        found: Any = passages
        if isinstance(passages, Iterable) and not isinstance(passages, (str, Mapping, Set)):
            found = list(passages)
            if found and all(isinstance(one, tuple) and len(one) == 2 for one in found):
                found = self._in_order(query, found, ordered)
        run = QueryRun(query, found, self.k if k is None else k, retrieve, ordered=ordered, limits=limits)
        if wish := instruction or run.query.instruction or self.instruction:
            run.query = replace(run.query, instruction=wish)
        return run

    def _in_order(self, query: str | Query, given: list[Any], ordered: bool) -> list[Candidate]:
        """The passages without their scores: distances sort them, and scores that contradict the order are logged."""
        scores = [math.nan if score is None else score for _, score in given]
        if strange := [one for one in scores if isinstance(one, str) or not hasattr(one, "__float__")]:
            raise TypeError(f"the first-stage score {strange[0]!r:.40} is no number: use a number, or None")
        known, trend = [one for one in (float(score) for score in scores) if one == one], Trend()
        if self.distances and len(known) == len(given):
            given.sort(key=lambda pair: float(pair[1]))
        for score in known if ordered and not self.distances else ():
            trend.add(score)
        if (problem := trend.contradiction()) and not vars(self).get("_warned"):
            vars(self)["_warned"] = True  # once a reranker
            text = query.text if isinstance(query, Query) else query
            log.warning("query %.100r: %s; their order is kept: %s", text, problem, REMEDY)
        return [passage for passage, _ in given]

    def _check(self, retrieve: Retrieve | None) -> Retrieve | None:
        if retrieve is not None and not callable(retrieve):
            raise TypeError(f"retrieve={retrieve!r:.100} is no function: pass a function from a text to passages")
        if retrieve is not None and self.hops < 2:
            raise ValueError("retrieve= needs hops >= 2 (got hops=1): it searches between two hops")
        return retrieve

    def _outcome(self, item: Item) -> Coroutine[Any, Any, Ranking | Exception]:
        """Read an item here and now; the coroutine that ranks it returns an error of either instead of raising it."""

        async def outcome(run: QueryRun | Exception) -> Ranking | Exception:
            if isinstance(run, Exception):
                return run
            try:
                ranking = await self._rank(run)
                if not vars(self).get("_logged"):
                    vars(self)["_logged"] = ranking.log_problems()
                return ranking
            except BaseException as error:
                return as_exception(error)

        try:
            if not isinstance(item, (tuple, list)) or len(item) != 2:
                raise TypeError(f"the item {item!r:.100} is no pair (query, passages)")
            return outcome(self._read(*item))
        except BaseException as error:
            if may_be_ctrl_c(error):
                raise
            return outcome(as_exception(error))

    async def _rank(self, run: QueryRun) -> Ranking:
        session, task = self._session, asyncio.current_task()
        assert task is not None
        otel = sys.modules.get("opentelemetry.trace")  # imported and configured, or else this costs nothing
        if otel and chat.get() is None and not isinstance(otel.get_tracer_provider(), otel.ProxyTracerProvider):
            return await traced(self.plan.backend.model, run.query, run.wanted, partial(self._rank, run))
        if run.limits is not None and run.limits.ended is None:
            return await self._within(run.limits, run)
        session.tasks.add(task)
        try:
            if session.closed:
                raise LoopError(CLOSED)
            if len(run.candidates) < 2 and not (run.candidates and (run.retrieve or self.plan.algorithm == SCORES)):
                n = len(run.candidates)
                return Ranking(run.query, run.candidates, tuple(range(n)), k=n)
            async with session.gates.get():
                run.turn = Turn(session.slots.get()) if session.slots else None
                ranking = await session.loop.run(run)
            if len(ranking.trace) >= LARGE_TRACE:
                await asyncio.to_thread(getattr, ranking, "scores")
            name, comparisons = run.query.id or run.query.text[:60], len(ranking.trace)
            log.info("query %r is done: %d comparisons in %.1f s", name, comparisons, ranking.seconds)
            return ranking
        except asyncio.CancelledError:
            if session.closed:
                raise LoopError(CLOSED) from None
            raise
        finally:
            session.tasks.discard(task)

    async def _within(self, limits: Limits, run: QueryRun) -> Ranking:
        """`_rank`, or the order so far once a limit is reached: what is open then is cancelled and not awaited."""
        session, ended = self._session, limits.begin()
        task = asyncio.create_task(self._rank(run))
        task.add_done_callback(lambda one: one.cancelled() or one.exception())  # nobody may be left who asks for it
        session.limits.add(limits)
        try:
            await asyncio.wait((task, ended), return_when=asyncio.FIRST_COMPLETED)
            if ended.done() and (ended.exception() or task.cancelled() or not task.done()):
                ranking = await session.loop.cut_short(run, ended.result())
                if ranking.truncated is not None:
                    log.info("query %r %s", run.query.id or run.query.text[:60], ranking.truncated)
            else:
                ranking = task.result()
            if limits.tokens is not None and ranking.trace and not limits.used and "tokens" not in session.loop.done:
                session.loop.done.add("tokens")
                log.warning("budget_tokens= has no effect: the backend reports no tokens of prompts and completions")
            if limits.on_event is not None:
                limits.on_event(RankingDone(ranking))
            return ranking
        finally:
            session.limits.discard(limits)
            limits.stop_clock()
            task.cancel()

    @cached_property
    def _session(self) -> Session:
        """Used on the private loop only."""
        plan = self.plan
        reasoning_tokens = plan.reasoning_tokens * plan.format.reasoning
        limits = plan.query_tokens, plan.passage_tokens
        budget = Budget(plan.format, plan.size, reasoning_tokens, *limits, clip=plan.clip, fewest=FEWEST)
        capacity: int | None = getattr(plan.backend, "capacity", None)
        return Session(
            loop=SelectionLoop(plan, Comparer(plan), budget, self.on_failure),
            gates=PerLoop(partial(asyncio.Semaphore, plan.in_flight), per_caller=True),
            slots=PerLoop(partial(Slots, capacity), per_caller=True) if capacity else None,
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


def with_bar(results: Iterator[Result], items: object) -> Iterator[Result]:
    """The results, counted by a bar as they come."""
    from rankr1_rag.explain.terminal import query_bar

    with query_bar(items) as count, closing(results):  # type: ignore[type-var]
        for result in results:
            count(result[1])
            yield result


async def awith_bar(results: AsyncIterator[Result], items: object) -> AsyncIterator[Result]:
    """`with_bar`, awaited."""
    from rankr1_rag.explain.terminal import query_bar

    async with aclosing(results):  # type: ignore[type-var]
        with query_bar(items) as count:
            async for result in results:
                count(result[1])
                yield result
