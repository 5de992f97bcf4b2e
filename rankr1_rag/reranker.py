"""The facade: a query and its candidates in, a `Ranking` out; one at a time or any number at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from types import TracebackType
from typing import Annotated, Any, Self

from rankr1_rag.backends import Backend
from rankr1_rag.concurrency import streams
from rankr1_rag.concurrency.event_loop import private_loop
from rankr1_rag.concurrency.per_loop import PerLane, PerLoop
from rankr1_rag.engine.query import Budget, Retrieve, Stages
from rankr1_rag.engine.selection_loop import Engine
from rankr1_rag.errors import LoopError
from rankr1_rag.settings import MODEL, SELECTION, Option, Plan, Settings, options, with_options
from rankr1_rag.types import Passage, Query, Ranking, read_candidates, read_query

Item = tuple[str | Query, Iterable[Passage | str]]
"""A query with its candidates, first-stage best first."""
Asked = tuple[Query, tuple[Passage, ...], int | None, Retrieve | None]


@with_options
@dataclass(frozen=True, eq=False)
class Reranker(Settings):
    """Reranks candidates with a reasoning model. Safe to share between threads, event loops and queries.

    `Reranker(backend, k=5, …)` takes the options below; `k=None` selects all candidates. `plan` holds what is in force,
    after the table of checkpoints filled in what was left open. A wrong option is a ValueError or TypeError here and
    not later. Algorithms and set sizes are those of arXiv 2503.06034; docs/options.md says more about each option.
    """

    backend: Annotated[
        Backend | None, Option("Language model that is asked", MODEL, "the embedded model, on the CPU", live=True)
    ] = None
    retrieve: Annotated[
        Retrieve | None,
        Option(
            "Function of a text that finds more candidates between two hops; takes hops=2 or more",
            SELECTION,
            "none",
            live=True,
        ),
    ] = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        self._check(self.retrieve)
        _ = self.plan

    @cached_property
    def plan(self) -> Plan:
        """The options in force: backend, format, algorithm, size, reasoning budget, limits of texts and the others."""
        backend = self.backend
        if backend is None:
            from rankr1_rag.backends.openvino import OpenVINO

            backend = OpenVINO()
        if isinstance(backend, type) or not callable(getattr(backend, "complete", None)):
            raise TypeError(f"backend={backend!r:.100} is no backend: use OpenAI('model', base_url=…) for example")
        return self.resolved(backend)

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
        options(Reranker)["k"].check(k)
        return read_query(query), read_candidates(passages), self.k if k is None else k, retrieve

    def _check(self, retrieve: Retrieve | None) -> Retrieve | None:
        if retrieve is not None and not callable(retrieve):
            raise TypeError(f"retrieve= must be a function of a text (got a {type(retrieve).__name__})")
        if retrieve is not None and self.hops < 2:
            raise ValueError("retrieve= needs hops >= 2 (got hops=1): it searches between two hops")
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
        return self.plan.engine(self.temperature, self.strict)

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
