"""One query from its candidates to its ranking: in one stage or, hop-aware, in several.

Each stage is an ordinary selection from what is left. The first goes by the query alone and, where others follow,
selects one; each later one is shown what was chosen before it as known, and selects one more; the last fills up the k.
Between them more candidates may be retrieved. Knows selections, budgets and the engine; knows nothing of many queries.

How a query and its candidates are made to fit a model's context: cleaned, then clipped, once each.

The passages of a set share what the context leaves after the completion and the overhead, equally. Knows formats and
token counts; nothing of algorithms or of how completions are made.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Protocol

from rankr1_rag.engine.retrieval import Retriever
from rankr1_rag.engine.selection_loop import Engine, Task
from rankr1_rag.errors import BackendError
from rankr1_rag.prompt import Format, clip, sanitise, tokens
from rankr1_rag.scoring import fused, ordered
from rankr1_rag.selection import among
from rankr1_rag.settings import Plan
from rankr1_rag.types import Comparison, Passage, Query, Ranking, read_candidates

MARGIN = 192
"""Tokens kept free for what the chat template adds and for asking again where the label must be forced."""

LEAST = 16
"""A share below so many tokens a passage is refused: the model would see nothing worth comparing."""


class Room(Protocol):
    """What of a `Backend` is needed here."""

    @property
    def context(self) -> int | None:
        """Longest prompt and completion together, in tokens; None where unknown."""

    def count(self, text: str) -> int | None:
        """Tokens of this text, None where the tokenizer is not at hand."""


@dataclass(frozen=True, slots=True)
class Texts:
    """What will be shown of one query and its candidates; `clipped` counts the texts that were cut."""

    query: str
    lines: tuple[str, ...]
    clipped: int


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of one reranker, in tokens; None is no limit of its own.

    `size` is the set size, `known` how many passages may be shown beside a set as known already.
    """

    format: Format
    size: int
    reasoning_tokens: int
    query_tokens: int | None = None
    passage_tokens: int | None = None
    known: int = 0

    def fit(self, query: str, candidates: Sequence[Passage], backend: Room) -> Texts:
        """Clean and clip. ValueError where the context cannot hold a set of this size at all."""
        context = backend.context
        shown = sanitise(query)
        limit = _least(self.query_tokens, context // 4 if context else None)
        asked = clip(shown, limit, backend.count) if limit is not None else shown
        share = _least(self.passage_tokens, self._share(asked, min(self.size, len(candidates)), backend))
        lines = [self.format.line(passage) for passage in candidates]
        cut = lines if share is None else [clip(line, share, backend.count) for line in lines]
        return Texts(asked, tuple(cut), (asked != shown) + _differ(lines, cut))

    def _share(self, query: str, n: int, backend: Room) -> int | None:
        """Tokens for each passage of a full set, and for each that is known beside it."""
        if backend.context is None or n == 0:
            return None
        known, shown = [""] * self.known, n + self.known * self.format.known_times
        text = "\n".join(message["content"] for message in self.format.messages(query, [""] * n, known))
        completion = self.reasoning_tokens + 2 * self.format.answer_tokens(n)
        share = (backend.context - MARGIN - completion - tokens(text, backend.count)) // shown
        if share < LEAST:
            beside = f" and {self.known} known beside them" if self.known else ""
            raise ValueError(
                f"a context of {backend.context} tokens leaves {max(share, 0)} tokens for each of {n} passages{beside} "
                f"after {completion} for the completion: lower the set size ({self.size}) below {n}, or "
                f"reasoning_tokens "
                f"({self.reasoning_tokens}){', or hops' if self.known else ''}"
            )
        return share


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _differ(before: Iterable[str], after: Iterable[str]) -> int:
    return sum(a != b for a, b in zip(before, after, strict=True))


Retrieve = Callable[[str], Iterable[Passage | str] | Awaitable[Iterable[Passage | str]]]
"""What finds more candidates for a text: the query with the title and the text of what was chosen last.

A plain function is called in a thread of its own; what is to be awaited is, on the event loop of a caller who awaits.
"""

_LARGE = 200_000
"""So many characters of candidates are cleaned and clipped in a thread, beside the loop."""


@dataclass(slots=True, eq=False)
class Stages:
    """`candidates` grow by what is retrieved, `chosen` and `trace` by what was done; `k` None selects all of them."""

    engine: Engine
    plan: Plan
    budget: Budget
    query: Query
    candidates: tuple[Passage, ...]
    k: int | None
    retrieve: Retrieve | None = None
    trace: list[Comparison] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    clipped: int = 0
    ranks: list[int] = field(init=False)
    """Of the candidates, each in the retrieval that found it."""

    def __post_init__(self) -> None:
        self.ranks = list(range(1, len(self.candidates) + 1))

    @property
    def wanted(self) -> int:
        """How many are to be selected of the candidates there are now."""
        n = len(self.candidates)
        return n if self.k is None else min(self.k, n)

    async def ranking(self, fusion: float | None, *, or_first_stage: bool) -> Ranking:
        """Select, and put the candidates in order. Errors as `run`, unless a failed backend leaves the first stage."""
        start, failure, first = time.perf_counter(), None, len(self.candidates)
        try:
            await self.run()
        except BackendError as error:
            if not or_first_stage:
                raise
            self.chosen, failure = list(range(self.wanted)), f"{type(error).__name__}: {error}"
        order = ordered(self.chosen, len(self.candidates))
        return Ranking(
            query=self.query,
            candidates=self.candidates,
            order=order if fusion is None or failure else fused(order, fusion, self.ranks),
            k=self.wanted,
            trace=tuple(self.trace),
            clipped=self.clipped,
            seconds=time.perf_counter() - start,
            failure=failure,
            chosen=None if fusion is None else tuple(self.chosen),
            retrieved=len(self.candidates) - first,
        )

    async def run(self) -> None:
        """Select. BackendError, UnparsedError as the engine raises them, and whatever `retrieve` does."""
        texts = await self._fit()
        last, searched = self._stages, 0
        for stage in range(1, last + 1):
            if self.retrieve is not None and len(self.chosen) > searched:
                searched = len(self.chosen)
                if await self._retrieved(self.retrieve):
                    texts = await self._fit()
            await self._select(texts, self.wanted - len(self.chosen) if stage == last else 1)

    @property
    def _stages(self) -> int:
        """How many there are: none that would have nothing to select, as far as that is known before it begins."""
        most = self.wanted if self.retrieve is None or not self.candidates else self.k
        return self.plan.hops if most is None else min(self.plan.hops, most)

    async def _select(self, texts: Texts, k: int) -> None:
        left = [position for position in range(len(self.candidates)) if position not in self.chosen]
        if not left:
            return
        selection = self.plan.selection(len(left), k)
        if self.chosen:
            selection = among(selection, left)
        task = Task(selection, texts.query, texts.lines, self.trace, tuple(self.chosen))
        self.chosen += await self.engine.run(task)

    async def _retrieved(self, retrieve: Retrieve) -> bool:
        """Whether there are new candidates now."""
        last = self.candidates[self.chosen[-1]]
        text = " ".join(part for part in (self.query.text, last.title, last.text) if part)
        new = _new(await Retriever(retrieve).find(text), self.candidates)
        self.candidates += tuple(new.values())
        self.ranks += new
        return bool(new)

    async def _fit(self) -> Texts:
        """The texts to show. Counting tokens may mean loading a model: not on the loop that others wait for."""
        backend, budget = self.plan.backend, replace(self.budget, known=max(0, self._stages - 1))
        if backend.context is None and sum(len(passage.text) for passage in self.candidates) < _LARGE:
            texts = budget.fit(self.query.text, self.candidates, backend)
        else:
            texts = await asyncio.to_thread(budget.fit, self.query.text, self.candidates, backend)
        self.clipped = texts.clipped
        return texts


def _new(found: Sequence[Passage | str], candidates: Sequence[Passage]) -> dict[int, Passage]:
    """By its rank what is not among the candidates, by id or content, each once; a bare text gets a free number as id.

    An id of "" is none, nor is one that is the candidate's position: a bare text got it so. TypeError for others.
    """
    taken = {passage.id for passage in candidates}
    ids = {passage.id for position, passage in enumerate(candidates) if passage.id != str(position)} - {""}
    contents = {(passage.title, passage.text) for passage in candidates}
    new: dict[int, Passage] = {}
    for rank, (one, passage) in enumerate(zip(found, _passages(found), strict=True), 1):
        content, bare = (passage.title, passage.text), isinstance(one, str)
        if content in contents or (not bare and passage.id in ids):
            continue
        contents.add(content)
        if bare:
            free = next(id for id in map(str, count(len(candidates) + len(new))) if id not in taken)
            new[rank] = replace(passage, id=free)
        else:
            ids |= {passage.id} - {""}
            new[rank] = passage
        taken.add(new[rank].id)
    return new


def _passages(found: Sequence[Passage | str]) -> tuple[Passage, ...]:
    try:
        return read_candidates(found)
    except TypeError as error:
        raise TypeError(f"what retrieve= gave: {error}") from None
