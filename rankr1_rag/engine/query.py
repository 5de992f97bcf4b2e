"""One query while it is ranked: its candidates, the texts shown of them, its trace and the positions selected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count
from typing import NoReturn, Protocol

from rankr1_rag.engine.limits import Limits
from rankr1_rag.prompt import Format, Special, clip, clip_to_window, sanitise, special_pattern, tokens
from rankr1_rag.scoring import decisions, fused, means, winner
from rankr1_rag.selection import LISTWISE, SCORES, Answer, Round, Set, so_far
from rankr1_rag.selection.voting import borda
from rankr1_rag.settings import Plan
from rankr1_rag.types import Clip, Comparison, Message, OrderSoFar, Passage, Query, Ranking, Truncated

MARGIN = 192
"""Tokens kept free for the chat template and for the second request of a forced answer."""

TURN = 8
"""Tokens of the chat template for each turn after the first two."""

LEAST = 16
"""Fewest tokens of a passage: with less the model would see nothing worth comparing."""

COMFORTABLE = 256
"""Tokens of a passage below which fewer passages are shown at once, as long as the passage has more."""

FEWEST = 4
"""Passages that are shown at once even if their texts must be cut."""

MANY = 1_000
"""Candidates from which on the order so far is computed once a round, not after each answer: it takes milliseconds."""

Retrieve = Callable[[str], Iterable[Passage | str] | Awaitable[Iterable[Passage | str]]]
"""Finds more candidates for a text: the query with the title and the text of the passage selected last.

A plain function is called in a thread of its own; a coroutine is awaited on the caller's event loop, if it has one.
"""


class TokenCounter(Protocol):
    """The part of a `Backend` that clipping needs."""

    @property
    def context(self) -> int | None:
        """Longest prompt and completion together, in tokens; None if unknown."""

    def count(self, text: str) -> int | None:
        """Tokens of this text; None if the tokenizer is not at hand."""


@dataclass(frozen=True, slots=True)
class Texts:
    """The query, its instruction and the candidates as they are shown: sanitised, then clipped, in sets of `size`.

    `clipped` counts the texts cut, `clipped_tokens` what they lost; `cut_share` is the share of the candidates' texts
    that is not shown; `limit` is the most tokens of a passage, None if there is no limit; `special` finds
    the special tokens, which no text holds.
    """

    query: str = ""
    instruction: str = ""
    lines: tuple[str, ...] = ()
    clipped: int = 0
    clipped_tokens: int = 0
    cut_share: float = 0.0
    size: int = 0
    limit: int | None = None
    special: Special = None

    def messages(self, format: Format, shown: Sequence[int], known: Sequence[int]) -> list[Message]:
        """The messages that show the texts at these positions, with those known."""
        lines, context = ([self.lines[position] for position in some] for some in (shown, known))
        return format.messages(self.query, lines, context, self.instruction)


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of one reranker in tokens; None is no limit.

    `size` is the set size, `known` the most passages that are shown as known with one set. Where less than 256 tokens
    are left for a passage that has more, sets become smaller, down to `fewest`; None keeps the size.
    """

    format: Format
    size: int
    reasoning_tokens: int
    query_tokens: int | None = None
    passage_tokens: int | None = None
    known: int = 0
    clip: Clip = "head"
    fewest: int | None = None

    def fit(self, query: str, candidates: Sequence[Passage], backend: TokenCounter, instruction: str = "") -> Texts:
        """Sanitise and clip, once a query. ValueError if the context cannot hold a set of this size.

        The passages of a set share equally what the context leaves after the completion and the overhead.
        """
        known_tokens: frozenset[str] | None = getattr(backend, "special_tokens", None)
        special, asked = special_pattern(known_tokens) if known_tokens else None, self.format.query_text
        context, count, shown = backend.context, backend.count, sanitise(asked(query) if asked else query, special)
        lines = [self.format.line(passage, special) for passage in candidates]
        limits = [] if self.query_tokens is None else [self.query_tokens]
        if context:
            limits.append(context // 4)
        given = sanitise(instruction, special).strip()
        cut, wish = (clip(text, min(limits), count) if limits and text else text for text in (shown, given))
        sets, limit = self.size, self.passage_tokens
        if context is not None and lines:
            size = min(self.size, len(lines))
            fewest = size if self.fewest is None else min(size, self.fewest)
            share = self.share(cut, wish, size, context, count)
            if size > fewest and share < COMFORTABLE:
                wanted = min(COMFORTABLE, limit or COMFORTABLE, max(tokens(line, count) for line in lines))
                while size > fewest and share < wanted:
                    sets = size = size - 1
                    share = self.share(cut, wish, size, context, count)
            if share < LEAST:
                self.refuse(share, size, context)
            limit = share if limit is None else min(limit, share)
        if limit is None:
            changed = (cut != shown) + (wish != given)
            return Texts(cut, wish, tuple(lines), changed, size=sets, special=special)
        texts = [self.cut(one, line, limit, shown, count, special) for one, line in zip(candidates, lines, strict=True)]
        pairs = [(a, b) for a, b in zip([shown, given, *lines], [cut, wish, *texts], strict=True) if a != b]
        lost = sum(tokens(a, count) - tokens(b, count) for a, b in pairs)
        letters, left = (
            sum(len("".join(one.split())) for one in some) for some in (lines, texts)
        )  # not words: Chinese has no spaces
        cut_share = 1 - left / max(1, letters)
        return Texts(cut, wish, tuple(texts), len(pairs), max(0, lost), cut_share, sets, limit, special)

    def cut(
        self,
        passage: Passage,
        line: str,
        limit: int,
        query: str,
        count: Callable[[str], int | None],
        special: Special = None,
    ) -> str:
        """A passage of at most `limit` tokens; a window keeps the title, unless that takes more than half of them.

        With the title stays what the format writes around it.
        """
        if self.clip == "head":
            return clip(line, limit, count)
        title = self.format.line(replace(passage, text=""), special).strip() if passage.title else ""
        left = limit - tokens(f"{title} ", count) - 1
        if not title or 2 * left < limit or not line.startswith(f"{title} "):
            return clip_to_window(line, limit, query, count)
        return f"{title} {clip_to_window(line[len(title) + 1 :], left, query, count)}"

    def share(self, query: str, instruction: str, n: int, context: int, counted: Callable[[str], int | None]) -> int:
        """Tokens for each passage of a set of n, and for each passage that is shown as known with it."""
        known, shown = [""] * self.known, n + self.known * self.format.known_times
        messages = self.format.messages(query, [""] * n, known, instruction)
        text = "\n".join(message["content"] for message in messages)
        completion = self.reasoning_tokens + 2 * self.format.answer_tokens(n)
        turns = TURN * max(0, len(messages) - 2)
        return (context - MARGIN - turns - completion - tokens(text, counted)) // shown

    def refuse(self, share: int, n: int, context: int) -> NoReturn:
        """The ValueError for a context that leaves a share too small to compare."""
        also, hops = (f" and {self.known} known passages", ", or hops") if self.known else ("", "")
        completion = self.reasoning_tokens + 2 * self.format.answer_tokens(n)
        raise ValueError(
            f"a context of {context} tokens leaves {max(share, 0)} tokens for each of {n} passages{also} after "
            f"{completion} for the completion: set context= if the model's is longer, or lower the set size "
            f"({self.size}) below {n}, or reasoning_tokens ({self.reasoning_tokens}){hops}"
        )


@dataclass(slots=True)
class Trace:
    """The comparisons of a query in the order asked, whichever completes first; `rounds` counts complete rounds."""

    rounds: int = 0
    comparisons: dict[tuple[int, int, int], Comparison] = field(default_factory=dict)
    """By round, place of the set in its round, and vote on the set."""

    def add(self, comparison: Comparison, place: int, vote: int = 0) -> None:
        """Add the comparison of the set at this place of its round, and of this vote on the set."""
        self.comparisons[comparison.round, place, vote] = comparison


class Slots:
    """Slots for comparisons, on one event loop: a free one goes to the query that began first."""

    def __init__(self, n: int) -> None:
        self.free = n
        self.waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self.numbers = count()

    def release(self) -> None:
        """Pass a slot on."""
        while self.waiting:
            *_, turn = heappop(self.waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1


class Turn:
    """A slot for each comparison of one query: `async with turn`. `waited`: seconds in which none had one."""

    def __init__(self, slots: Slots) -> None:
        self.slots, self.number = slots, next(slots.numbers)
        self.running, self.stopped, self.waited = 0, 0.0, 0.0

    async def __aenter__(self) -> None:
        if self.slots.free:
            self.slots.free -= 1
        else:
            turn, start = asyncio.get_running_loop().create_future(), time.perf_counter()
            heappush(self.slots.waiting, (self.number, next(self.slots.numbers), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():
                    self.slots.release()
                raise
            if not self.running:
                self.waited += time.perf_counter() - max(start, self.stopped)
        self.running += 1

    async def __aexit__(self, *_: object) -> None:
        self.running, self.stopped = self.running - 1, time.perf_counter()
        self.slots.release()


class QueryRun:
    """One query while it is ranked. Reading it may raise TypeError or ValueError, see `read_passages`.

    `candidates` grow by retrieval, `chosen` by selection; `ranks` holds the rank of each candidate in the retrieval
    that found it; `k` None selects all candidates; those that are not `ordered` have no order to fuse with.

    Of the selection in progress: `left` are its positions, `places` those of them that it has selected, `round` its
    sets, and `open` the number of comparisons that the answer to each of these waits for. `is_complete` once nothing is
    left to ask.
    """

    def __init__(
        self,
        query: str | Query,
        passages: Iterable[Passage | str],
        k: int | None = None,
        retrieve: Retrieve | None = None,
        *,
        ordered: bool = True,
        limits: Limits | None = None,
    ) -> None:
        self.query = Query("", query) if isinstance(query, str) else query
        if not (isinstance(self.query, Query) and isinstance(self.query.id, str) and isinstance(self.query.text, str)):
            raise TypeError(f"a query must be a str or a Query(id, text) of str (got {query!r:.200})")
        if not self.query.text.strip():
            raise ValueError(f"the query{self.query.id and f' {self.query.id!r}'} is empty: pass the question's text")
        if not isinstance(self.query.instruction, str):
            raise TypeError(f"instruction={self.query.instruction!r:.100} is no text: say what is wanted in a str")
        self.candidates = read_passages(passages)
        self.k = k
        self.retrieve, self.ordered = retrieve, ordered
        self.first_stage = len(self.candidates)
        self.ranks = list(range(1, self.first_stage + 1))
        self.chosen: list[int] = []
        self.texts = Texts()
        self.trace = Trace()
        self.turn: Turn | None = None
        self.limits = limits
        self.started = 0.0
        self.left: Sequence[int] = ()
        self.places: list[int] = []
        self.round: Round = []
        self.open: list[int] = []
        self.is_complete = False

    @property
    def wanted(self) -> int:
        """How many of the present candidates are to be selected."""
        n = len(self.candidates)
        return n if self.k is None else min(self.k, n)

    def add(self, found: Sequence[Passage | str]) -> bool:
        """Add retrieved passages that are no candidates yet, each once; whether there were any. TypeError for others.

        A passage is known by its id or its content. An id of "" does not count, nor does one that is the candidate's
        position, as texts without an id get it; a text that is found gets a free number as id.
        """
        taken = {passage.id for passage in self.candidates}
        ids = {passage.id for position, passage in enumerate(self.candidates) if passage.id != str(position)} - {""}
        contents = {(passage.title, passage.text) for passage in self.candidates}
        try:
            passages = read_passages(found)
        except TypeError as error:
            raise TypeError(f"retrieve= returned a wrong list: {error}") from None
        new, free = list[Passage](), 0
        for rank, (one, passage) in enumerate(zip(found, passages, strict=True), 1):
            if (passage.title, passage.text) in contents or (not isinstance(one, str) and passage.id in ids):
                continue
            if isinstance(one, str):
                free = max(free, len(self.candidates) + len(new))
                while str(free) in taken:
                    free += 1
                passage = replace(passage, id=str(free))
            else:
                ids |= {passage.id} - {""}
            contents.add((passage.title, passage.text))
            taken.add(passage.id)
            new.append(passage)
            self.ranks.append(rank)
        self.candidates += tuple(new)
        return bool(new)

    @property
    def selected(self) -> list[int]:
        """The positions selected for good, by the selection in progress too."""
        return [*self.chosen, *(self.left[place] for place in self.places)]

    @property
    def unanswered(self) -> tuple[Set, ...]:
        """The sets of the round that have no answer."""
        return tuple(shown for shown, left in zip(self.round, self.open, strict=True) if left)

    def order_so_far(self, plan: Plan) -> tuple[int, ...]:
        """All candidates, not fused: those selected, then the first-stage order; until k are, as answers changed it.

        Those with a score change places among themselves only.
        """
        trace, selected = [comparison for _, comparison in sorted(self.trace.comparisons.items())], self.selected
        if plan.algorithm == SCORES:
            own, final = means(trace), set(selected)
            left = [position for position in range(len(self.candidates)) if position not in final]
            best = iter(sorted([one for one in left if one in own], key=lambda one: (-own[one], one)))
            return (*selected, *[next(best) if one in own else one for one in left])
        asked = decided(trace, plan) if len(selected) < self.wanted else []
        return tuple(so_far(len(self.candidates), asked, selected))

    def follow(self, plan: Plan, limits: Limits, comparison: Comparison) -> None:
        """Pass on a complete comparison; without tokens the query ends here if its round has more to ask.

        The order after the last answer of a round is that of the selection, which gets the answers next.
        """
        limits.answered(comparison)
        if any(self.open):
            if len(self.candidates) < MANY:
                self.emit_order(plan, limits)
            if limits.used_up:
                limits.end("budget_tokens")

    def emit_order(self, plan: Plan, limits: Limits) -> None:
        """Pass on the order so far, as the ranking would have it; with fusion nothing of it is final."""
        if limits.on_event is None:
            return
        order, final = self.order_so_far(plan), len(self.selected)
        if self.ordered and plan.fusion is not None:
            order, final = fused(order, plan.fusion, self.ranks), 0
        limits.emit(OrderSoFar(order, final))

    def ranking(
        self,
        plan: Plan,
        trace: Sequence[Comparison],
        seconds: float,
        failure: str | None,
        truncated: Truncated | None = None,
    ) -> Ranking:
        """The result: the positions selected, then the other candidates; after a failure the first-stage order."""
        fusion = plan.fusion if self.ordered else None
        if failure is not None:
            self.chosen = list(range(self.wanted))
        order = tuple(dict.fromkeys([*self.chosen, *range(len(self.candidates))]))
        if truncated is not None:
            order = self.order_so_far(plan)
            self.chosen = list(order[: self.wanted])
        return Ranking(
            query=self.query,
            candidates=self.candidates,
            order=order if fusion is None or failure else fused(order, fusion, self.ranks),
            k=self.wanted,
            trace=tuple(trace),
            clipped=self.texts.clipped,
            clipped_tokens=self.texts.clipped_tokens,
            seconds=seconds,
            failure=failure,
            chosen=None if fusion is None else tuple(self.chosen[: self.wanted]),
            retrieved=len(self.candidates) - self.first_stage,
            truncated=truncated,
        )


def decided(trace: Sequence[Comparison], plan: Plan) -> list[tuple[Set, Answer]]:
    """The sets with what the selection takes for their answers, several votes on a set as one.

    An answer that names no passage says nothing, so that the first-stage best of its set won nothing.
    """
    found: list[tuple[Set, Answer]] = []
    for votes in decisions([one for one in trace if one.parsed]):
        shown = votes[0].set
        answer = (winner(votes),) if plan.votes == "auto" else borda([one.answer for one in votes], len(shown))
        found.append((shown, answer if plan.algorithm in LISTWISE else answer[:1]))
    return found


def read_passages(passages: Iterable[Passage | str]) -> tuple[Passage, ...]:
    """Passages of passages and texts; a text gets its position as id. TypeError with the position of anything else."""
    if isinstance(passages, (str, Passage, Mapping, AbstractSet)) or not isinstance(passages, Iterable):
        raise TypeError(f"passages={passages!r:.100} is no list: pass the candidates, first-stage best first")
    read = []
    for position, one in enumerate(passages):
        passage = Passage(str(position), one) if isinstance(one, str) else one
        if not isinstance(passage, Passage) or not (
            isinstance(passage.id, str) and isinstance(passage.text, str) and isinstance(passage.title, str)
        ):
            raise TypeError(f"passage {position} is neither a str nor a Passage(id, text, title) of str: {one!r:.200}")
        read.append(passage)
    return tuple(read)
