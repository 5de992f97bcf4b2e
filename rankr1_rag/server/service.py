"""One engine for all requests: its readiness, its queue, its deadlines, and the rankings kept for their pages."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from uuid import uuid4

from rankr1_rag.engine.query import FEWEST, Budget
from rankr1_rag.errors import LoopError, RankR1Error, UnparsedError
from rankr1_rag.explain import page
from rankr1_rag.prompt import clip, tokens
from rankr1_rag.reranker import Reranker
from rankr1_rag.server.config import ServerConfig
from rankr1_rag.server.contract import Refusal, RerankRequest, passages_of, query_text
from rankr1_rag.server.metrics import Metrics
from rankr1_rag.server.queue import FairQueue, QueueFull
from rankr1_rag.types import OnEvent, Passage, Query, Ranking

log = logging.getLogger("rankr1_rag.server")

PAGES, PAGE_CHARACTERS = 100, 20_000_000
"""The most rankings that are kept for their pages, and the most characters of their passages, for all of them."""

AGAIN = 5.0
"""Seconds between two attempts to load the model."""

LONGEST = 86_400.0
"""Seconds of the longest query: each has a deadline, so that it can be ended when the server stops."""

ENDING = 0.5
"""Seconds before the end of the time of grace at which open queries are ended."""

SOON = 0.001
"""A deadline that is over: the ranking is the order of the request."""


@dataclass(frozen=True, slots=True)
class RerankJob:
    """A request that was read: what is ranked, for whom, and the moment of its deadline on the monotonic clock.

    `spent` are the seconds that it waited for a place, and those of the engine.
    """

    query: Query
    passages: Sequence[Passage]
    k: int
    hops: int
    key: str
    deadline: float
    spent: dict[str, float] = field(default_factory=dict)


class Service:
    """Ranks the jobs of one server. Its methods run on the server's event loop."""

    def __init__(self, reranker: Reranker, config: ServerConfig, metrics: Metrics) -> None:
        most = config.max_queries or reranker.plan.in_flight
        self.reranker = reranker if reranker.in_flight == most else replace(reranker, in_flight=most)
        self.config, self.metrics = config, metrics
        self.queue = FairQueue(most, config.max_queue)
        self.by_hops = {self.reranker.hops: self.reranker}
        self.pages: OrderedDict[str, Ranking] = OrderedDict()
        self.ready = self.stopping = self.ending = False
        self.problem = "the model is loading"
        metrics.in_flight.set_function(lambda: self.queue.open)
        metrics.queued.set_function(lambda: self.queue.waiting)

    @property
    def model(self) -> str:
        """The name of the model that is asked."""
        return self.reranker.plan.backend.model

    async def load(self) -> None:
        """Load the model with one small comparison; again until there is an answer."""
        query, passages = Query("load", "Which number is less?"), ["number 2", "number 1"]
        while not self.ready:
            try:
                ranking = await self.reranker.arank(query, passages, k=1, deadline=LONGEST)
                self.ready, failure = bool(ranking.trace) and ranking.failure is None, ranking.failure
            except UnparsedError:  # an answer, of a model that must do better
                self.ready = True
            except (RankR1Error, OSError, ImportError, ValueError) as error:
                failure = f"{type(error).__name__}: {error}"
            if not self.ready:
                self.problem = f"the model is not loaded: {failure}"
                log.warning("%s (again in %.0f s)", self.problem, AGAIN)
                await asyncio.sleep(AGAIN)

    def left(self, job: RerankJob) -> float:
        """Seconds to the deadline of a job."""
        return SOON if self.ending else max(SOON, job.deadline - time.monotonic())

    def check_ready(self) -> None:
        """Refusal before the model is loaded, and while the server stops."""
        if self.stopping or not self.ready:
            why = "the server is stopping" if self.stopping else self.problem
            raise Refusal(503, why, retry_after=round(AGAIN))

    def names(self, model: str | None) -> bool:
        """Whether a request may name this model. Clients of hosted rerankers name those by default."""
        names, own = self.config.model_name, {self.model, self.model.rpartition("/")[2]}
        return not model or model in (names or own) or (not names and "rerank" in model.lower())

    async def read(self, request: RerankRequest, id: str, key: str, start: float) -> RerankJob:
        """Check a request that came at `start` and make it a job. Refusal by the limits of the server."""
        n = len(request.given)
        if not self.names(request.model):
            raise Refusal(404, f"there is no model {request.model!r:.100} here: use {self.model!r}", param="model")
        if n > self.config.max_documents:
            most = f"the most is {self.config.max_documents:,}"
            raise Refusal(413, f"the request has {n:,} documents: {most}", param="documents")
        query, passages = query_text(request), passages_of(request)
        if request.max_tokens_per_query or request.max_tokens_per_doc or request.must_fit or self.config.max_tokens:
            query, passages = await asyncio.to_thread(self.fit, request, query, passages)
        deadline = request.own.deadline or self.reranker.deadline or LONGEST
        return RerankJob(
            query=Query(id, query),
            passages=passages,
            k=request.own.k or min(request.best or 1, self.reranker.k or n or 1),
            hops=request.own.hops or self.reranker.hops,
            key=key,
            deadline=start + min(deadline, self.config.max_deadline or LONGEST),
        )

    def fit(self, request: RerankRequest, query: str, passages: list[Passage]) -> tuple[str, list[Passage]]:
        """The texts, cut to what the request allows; in a thread, as tokens are counted.

        Refusal for more tokens than the server takes or, if nothing may be cut, than the model can be shown.
        """
        plan, most = self.reranker.plan, self.config.max_tokens
        count = plan.backend.count
        if (limit := request.max_tokens_per_query) is not None:
            query = clip(query, limit, count)
        if (limit := request.max_tokens_per_doc) is not None:
            passages = [replace(one, text=clip(one.text, limit, count)) for one in passages]
        if most is not None:
            texts = [query, *(text for one in passages for text in (one.title, one.text) if text)]
            if (n := sum(tokens(text, count) for text in texts)) > most:
                raise Refusal(422, f"the texts have {n:,} tokens: the most is {most:,}", tei="Tokenizer")
        if request.must_fit:
            reasoning, limits = plan.reasoning_tokens * plan.format.reasoning, (plan.query_tokens, plan.passage_tokens)
            budget = Budget(plan.format, plan.size, reasoning, *limits, clip=plan.clip, fewest=FEWEST)
            if cut := budget.fit(query, passages, plan.backend).clipped:
                problem = f"{cut} texts are too long for the model: shorten them, or allow truncation"
                raise Refusal(422, problem, param="truncation", tei="Tokenizer")
        return query, passages

    async def rank(self, job: RerankJob, on_event: OnEvent | None = None) -> Ranking:
        """Rank as soon as there is a place. Refusal where there is none, and for a model that fails."""
        self.check_ready()
        reranker = self.by_hops.get(job.hops)
        if reranker is None:
            reranker = self.by_hops[job.hops] = replace(self.reranker, hops=job.hops)
        start, ask = time.monotonic(), partial(reranker.arank, job.query, job.passages, k=job.k, on_event=on_event)
        try:
            try:
                async with asyncio.timeout(self.left(job)):
                    await self.queue.enter(job.key)
            except TimeoutError:  # no place in time
                ranking = await ask(deadline=SOON)
            else:
                try:
                    job.spent["queue"], start = time.monotonic() - start, time.monotonic()
                    ranking = await ask(deadline=self.left(job))
                finally:
                    self.queue.done(time.monotonic() - start)
            job.spent["engine"] = time.monotonic() - start
        except QueueFull as error:
            raise Refusal(429, str(error), retry_after=error.retry_after) from None
        except LoopError:  # closed meanwhile
            raise Refusal(503, "the server is stopping", retry_after=round(AGAIN)) from None
        except ValueError as error:  # a context that is too small for these texts
            raise Refusal(422, str(error), tei="Tokenizer") from None
        except RankR1Error as error:
            log.warning("query %s failed: %s", job.query.id, error)
            raise Refusal(424, f"the model failed: {type(error).__name__}: {error}") from None
        self.metrics.count(ranking)
        return ranking

    async def stop(self) -> None:
        """Refuse new queries; after the time of grace the open ones get their order so far."""
        self.stopping = True
        await asyncio.sleep(max(0.0, self.config.grace - ENDING))
        self.ending = True
        for reranker in self.by_hops.values():
            await reranker.end_within(SOON)

    def keep(self, ranking: Ranking) -> str:
        """The address of the ranking's page, for as long as it is among the last ones."""
        id = uuid4().hex
        self.pages[id] = ranking
        while len(self.pages) > PAGES or (
            len(self.pages) > 1
            and sum(len(one.text) for kept in self.pages.values() for one in kept.candidates) > PAGE_CHARACTERS
        ):
            self.pages.popitem(last=False)
        return f"/rankings/{id}"

    async def page(self, id: str) -> str:
        """The page of a ranking. Refusal for one that is not kept."""
        ranking = self.pages.get(id)
        if ranking is None:
            raise Refusal(404, "this page is not kept any more, or never was: rank again")
        return await asyncio.to_thread(page, ranking)
