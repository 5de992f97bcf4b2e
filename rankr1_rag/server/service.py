"""One engine for all requests: its readiness, its queue, its deadlines, and the rankings kept for their pages."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from rankr1_rag.engine.query import FEWEST, Budget
from rankr1_rag.errors import LoopError, RankR1Error, UnparsedError
from rankr1_rag.explain import page
from rankr1_rag.prompt import clip, tokens
from rankr1_rag.prompt.texts import size
from rankr1_rag.reranker import Reranker
from rankr1_rag.server.config import ServerConfig
from rankr1_rag.server.contract import Refusal, RerankRequest, passages_of, query_text
from rankr1_rag.server.metrics import Metrics
from rankr1_rag.server.queue import FairQueue
from rankr1_rag.types import OnEvent, Passage, Query, Ranking, Truncated

log = logging.getLogger("rankr1_rag.server")

PAGES, PAGE_BYTES = 100, 64 << 20
"""The most rankings that are kept for their pages, and the most bytes of the texts of all of them."""

COUNTING = 2
"""Requests whose tokens are counted at once: the engine counts in the same threads."""

AGAIN = 5.0
"""Seconds between two attempts to load the model."""

LONGEST = 86_400.0
"""Seconds of the longest query: each has a deadline, so that it can be ended when the server stops."""

ENDING = 0.5
"""Seconds before the end of the time of grace at which open queries are ended."""

SOON = 0.001
"""Seconds in which an open query ends."""


@dataclass(frozen=True, slots=True)
class RerankJob:
    """A request that was read: what is ranked, for whom, when it came, and its deadline, on the monotonic clock.

    `texts` are those of the documents before they were cut. `spent` are the seconds that it waited for a place, and
    those of the engine.
    """

    query: Query
    passages: Sequence[Passage]
    texts: Sequence[str]
    k: int
    hops: int
    key: str
    start: float
    deadline: float
    spent: dict[str, float] = field(default_factory=dict)

    @property
    def limit(self) -> float:
        """Seconds from its coming to its deadline."""
        return round(self.deadline - self.start, 3)


class Service:
    """Ranks the jobs of one server. Its methods run on the server's event loop."""

    def __init__(self, reranker: Reranker, config: ServerConfig, metrics: Metrics) -> None:
        most = config.max_queries or reranker.plan.in_flight
        self.reranker = reranker if reranker.in_flight == most else replace(reranker, in_flight=most)
        self.config, self.metrics = config, metrics
        self.queue = FairQueue(most, config.max_queue)
        self.by_hops = {self.reranker.hops: self.reranker}
        self.counting = FairQueue(COUNTING, config.max_queue)
        self.pages: OrderedDict[str, tuple[Ranking, int]] = OrderedDict()
        self.page_bytes = 0
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
                self.ready, failure = bool(ranking.trace) and ranking.failure is None, str(ranking.failure)
            except UnparsedError:  # an answer, of a model that must do better
                self.ready = True
            except Exception as error:
                failure = f"{type(error).__name__}: {error}"
            if not self.ready:
                self.problem = f"the model is not loaded: {failure.partition(':')[0]}"
                log.warning("the model is not loaded: %s (again in %.0f s)", failure, AGAIN)
                await asyncio.sleep(AGAIN)

    def left(self, job: RerankJob) -> float:
        """Seconds to the deadline of a job, not above 0 once it is over."""
        return min(SOON if self.ending else LONGEST, job.deadline - time.monotonic())

    def check_ready(self) -> None:
        """Refusal before the model is loaded, and while the server stops."""
        if self.stopping or not self.ready:
            why = "the server is stopping" if self.stopping else self.problem
            raise Refusal(503, why, retry_after=round(AGAIN))

    def check_room(self, key: str) -> None:
        """Refusal for a new query of this key that would not be taken."""
        self.check_ready()
        self.queue.check_room(key)

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
        deadline = request.own.deadline or self.reranker.deadline or LONGEST
        job = RerankJob(
            query=Query(id, query, request.wish),
            passages=passages,
            texts=[one.text for one in passages],
            k=request.own.k or min(request.best or 1, self.reranker.k or n or 1),
            hops=request.own.hops or self.reranker.hops,
            key=key,
            start=start,
            deadline=start + min(deadline, self.config.max_deadline or LONGEST),
        )
        limits = request.max_tokens_per_query, request.max_tokens_per_doc, self.config.max_tokens
        if not (any(limits) or request.must_fit):
            return job
        stop = threading.Event()
        try:
            with refusals(job):
                async with asyncio.timeout(self.left(job)):
                    await self.counting.enter(key)
                    began = time.monotonic()
                    work = asyncio.create_task(asyncio.to_thread(self.fit, request, query, passages, stop))
                    work.add_done_callback(lambda _: self.counting.done(time.monotonic() - began))
                    work.add_done_callback(lambda one: one.cancelled() or one.exception())  # of a client that left
                    query, passages = await asyncio.shield(work)  # the thread ends later than its client
        except TimeoutError:  # `rank` answers in the order of the request
            return job
        finally:
            stop.set()
        return replace(job, query=replace(job.query, text=query), passages=passages)

    def fit(
        self, request: RerankRequest, query: str, passages: list[Passage], stop: threading.Event
    ) -> tuple[str, list[Passage]]:
        """The texts, cut to what the request allows; in a thread, as tokens are counted until `stop` is set.

        Refusal for more tokens than the server takes or, if nothing may be cut, than the model can be shown.
        """
        plan, most = self.reranker.plan, self.config.max_tokens

        def count(text: str) -> int | None:
            if stop.is_set():
                raise TimeoutError
            return plan.backend.count(text)

        if (limit := request.max_tokens_per_query) is not None:
            query = clip(query, limit, count)
        if (limit := request.max_tokens_per_doc) is not None:
            passages = [replace(one, text=clip(one.text, limit, count)) for one in passages]
        if most is not None:
            texts = [query, request.wish, *(text for one in passages for text in (one.title, one.text) if text)]
            fits = sum(map(size, texts)) <= most  # a token has a byte at least
            if not fits and (n := sum(tokens(text, count) for text in texts)) > most:
                raise Refusal(422, f"the texts have {n:,} tokens: the most is {most:,}", tei="Tokenizer")
        if request.must_fit:
            reasoning, limits = plan.reasoning_tokens * plan.format.reasoning, (plan.query_tokens, plan.passage_tokens)
            budget = Budget(plan.format, plan.size, reasoning, *limits, clip=plan.clip, fewest=FEWEST)
            special = getattr(plan.backend, "special_tokens", None)
            counter: Any = SimpleNamespace(context=plan.backend.context, count=count, special_tokens=special)
            if cut := budget.fit(query, passages, counter, request.wish).clipped:
                problem = f"{cut} texts are too long for the model: shorten them, or allow truncation"
                raise Refusal(422, problem, param="truncation", tei="Tokenizer")
        return query, passages

    async def rank(self, job: RerankJob, on_event: OnEvent | None = None) -> Ranking:
        """Rank as soon as there is a place. Refusal where there is none, and for a model that fails."""
        self.check_ready()
        start = time.monotonic()
        with refusals(job):
            reranker = self.by_hops.get(job.hops)
            if reranker is None:
                reranker = self.by_hops[job.hops] = replace(self.reranker, hops=job.hops)
            try:
                if (left := self.left(job)) <= 0:
                    raise TimeoutError
                async with asyncio.timeout(left):
                    await self.queue.enter(job.key)
            except TimeoutError:  # no place in time: the order of the request
                n, early = len(job.passages), Truncated("deadline", job.limit)
                ranking = Ranking(job.query, tuple(job.passages), tuple(range(n)), k=min(job.k, n), truncated=early)
            else:
                try:
                    job.spent["queue"], start = time.monotonic() - start, time.monotonic()
                    ask, left = reranker.arank, max(SOON, self.left(job))
                    ranking = await ask(job.query, job.passages, k=job.k, deadline=left, on_event=on_event)
                finally:
                    self.queue.done(time.monotonic() - start)
            job.spent["engine"] = time.monotonic() - start
        if (end := ranking.truncated) is not None and end.reason == "deadline":  # the engine had the rest of the time
            ranking = replace(ranking, truncated=replace(end, limit=job.limit))
        if ranking.failure is not None:
            name, cause, *_ = [*ranking.failure.split(": "), ""]  # the rest may hold texts, the cause addresses
            log.warning("query %s keeps its order: %s: %s", job.query.id, name, cause)
            ranking = replace(ranking, failure=name)
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
        id, texts = uuid4().hex, [ranking.query.text]
        for passage in ranking.candidates:
            texts += passage.title, passage.text
        for comparison in ranking.trace:
            texts += comparison.completion.text, comparison.reasoning
            texts += [text for one in comparison.completion.logprobs or () for text in (one.token, *dict(one.top))]
        self.pages[id] = ranking, sum(map(sys.getsizeof, texts))
        self.page_bytes += self.pages[id][1]
        while len(self.pages) > PAGES or (len(self.pages) > 1 and self.page_bytes > PAGE_BYTES):
            self.page_bytes -= self.pages.popitem(last=False)[1][1]
        return f"/rankings/{id}"

    async def page(self, id: str) -> str:
        """The page of a ranking. Refusal for one that is not kept."""
        if id not in self.pages:
            raise Refusal(404, "this page is not kept any more, or never was: rank again")
        return await asyncio.to_thread(page, self.pages[id][0])


@contextmanager
def refusals(job: RerankJob) -> Iterator[None]:
    """What the engine raises is a Refusal; the text of an error, which may name addresses, is logged."""
    try:
        yield
    except LoopError:  # closed meanwhile
        raise Refusal(503, "the server is stopping", retry_after=round(AGAIN)) from None
    except RankR1Error as error:
        log.warning("query %s failed: %s", job.query.id, error)
        raise Refusal(424, f"the model failed: {type(error).__name__}, see the log of the server") from None
    except ValueError as error:  # a context that is too small for these texts, an option that does not fit
        raise Refusal(422, str(error), tei="Tokenizer") from None
