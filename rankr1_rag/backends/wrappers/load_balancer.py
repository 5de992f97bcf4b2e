"""Several backends with one model that look like one: the load is spread, and the loss of one is survived.

Knows `BackendUnavailable` and how prompts begin; knows nothing of servers, queries and formats. Asking all of them once
more, after a while, is the business of `retried`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile

from rankr1_rag.backends import Backend, Request
from rankr1_rag.concurrency.event_loop import PerLoop
from rankr1_rag.errors import BackendUnavailable
from rankr1_rag.types import Completion

_SLACK = 4
"""How many more open requests than the least busy one a backend may have, and still be preferred for what it knows."""

_STEP = 512
"""Characters from one beginning of a prompt to the next longer one."""

_KEPT = 16_384
"""How many beginnings are remembered of each backend: 8 million characters, as much as a large server keeps."""

_log = logging.getLogger("rankr1_rag.spread")


class Spread:
    """Each request goes to the backend with the fewest open ones, in turn among equals.

    But first to one that knows more than half of the prompt, because it was asked one that begins alike: servers keep
    what they have read (prefix caching). So a label is forced where its thought was written, and a set goes where one
    that begins like it was read; instructions that all prompts share are too little to count. Not if that backend has
    more than 4 open requests more than the least busy.

    One that raises `BackendUnavailable` rests: `first_rest` seconds, twice as long each time, `longest_rest` at most,
    or as long as it asked for (Retry-After). Its request goes to the next one at once, and the first request after the
    rest is a trial. Where all rest, they are asked nevertheless, but none before the time that it asked for. When all
    have failed, `BackendUnavailable` names each with its reason. A loss is logged once, and so is the recovery, by the
    logger `rankr1_rag.spread`.

    Every other error is raised at once, whosever it is: a prompt too long for one is so for all, and one with a wrong
    key or without the model must not hide behind the others. ValueError for no backend, or for different models.
    Loads and rests are those of the running event loop.
    """

    def __init__(self, backends: Sequence[Backend], *, first_rest: float = 2.0, longest_rest: float = 60.0) -> None:
        self.backends = tuple(backends)
        if not self.backends:
            raise ValueError("spread needs at least one backend, got none")
        if len(models := sorted({backend.model for backend in self.backends})) > 1:
            raise ValueError(f"spread needs backends of one model, got {', '.join(map(repr, models))}")
        self.first_rest = first_rest
        self.longest_rest = longest_rest
        self._lines: PerLoop[list[_Line]] = PerLoop(partial(_idle, self.backends))

    @property
    def model(self) -> str:
        """The model of them all."""
        return self.backends[0].model

    @property
    def identity(self) -> str:
        """All of theirs, in whatever order they were given and whichever answers; or the one that they share."""
        identities = sorted({backend.identity for backend in self.backends})
        return identities[0] if len(identities) == 1 else "spread:" + json.dumps(identities)

    @property
    def context(self) -> int | None:
        """The least of those that are known."""
        return min((one for backend in self.backends if (one := backend.context) is not None), default=None)

    @property
    def can_continue(self) -> bool:
        """Whether all can."""
        return all(backend.can_continue for backend in self.backends)

    def count(self, text: str) -> int | None:
        """As the first says that has the tokenizer at hand."""
        return next((n for backend in self.backends if (n := backend.count(text)) is not None), None)

    async def complete(self, request: Request) -> Completion:
        """Complete, or raise; each is asked at most once. Cancelling abandons the request."""
        lines, beginnings = self._lines.get(), _beginnings(request)
        failed: dict[_Line, str] = {}
        while (line := _chosen(lines, failed, beginnings)) is not None:
            lines.remove(line)
            lines.append(line)  # the first are those whose turn it is
            begun = time.monotonic()
            try:
                with line.asked(beginnings):
                    completion = await line.backend.complete(request)
            except BackendUnavailable as error:
                line.fails(begun, error, self.first_rest, self.longest_rest)
                failed[line] = str(error)
            else:
                line.works(begun)
                return completion
        raise _unavailable(lines, failed)

    async def close(self) -> None:
        """Close them all, whatever happens; an exception of the first that could not be closed is raised."""
        outcomes = await asyncio.gather(*(backend.close() for backend in self.backends), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    def __repr__(self) -> str:
        return f"spread({list(self.backends)!r})"


@dataclass(slots=True, eq=False)
class _Line:
    """A backend with its open requests, what it has read, and its rest, which goes from `since` until `until`.

    `reason` says why it is out, None where it works; `wished`: it said itself until when. `trials` are the requests
    that were sent to find out whether it works again.
    """

    backend: Backend
    open: int = 0
    known: dict[int, None] = field(default_factory=dict)  # the latest last
    reason: str | None = None
    since: float = -math.inf
    until: float = -math.inf
    pause: float = 0.0
    wished: bool = False
    trials: int = 0

    @contextmanager
    def asked(self, beginnings: Sequence[int]) -> Iterator[None]:
        """Around a request under way."""
        trial = self.reason is not None
        self.open += 1
        self.trials += trial
        self._learn(beginnings)
        try:
            yield
        finally:
            self.open -= 1
            self.trials -= trial

    def _learn(self, beginnings: Sequence[int]) -> None:
        for one in reversed(beginnings):  # so that the longest are forgotten first
            self.known.pop(one, None)
            self.known[one] = None
        while len(self.known) > _KEPT:
            del self.known[next(iter(self.known))]

    def knows(self, beginnings: Sequence[int]) -> int:
        """How many of these it has read, from the first on; 0 where it is not more than half."""
        known = sum(1 for _ in takewhile(self.known.__contains__, beginnings))
        return known if 2 * known > len(beginnings) else 0

    def rests(self, now: float) -> bool:
        """Whether others should be asked in its place."""
        return self.reason is not None and (now < self.until or self.trials > 0)

    def forbids(self, now: float) -> bool:
        """Whether it said itself that it must not be asked yet."""
        return self.wished and now < self.until

    def fails(self, begun: float, error: BackendUnavailable, first_rest: float, longest_rest: float) -> None:
        """Let it rest; the failure of a request that was begun before the last rest was over is no news."""
        now, news = time.monotonic(), begun >= self.until
        if news:
            self.pause = min(2 * self.pause or first_rest, longest_rest)
            self.since, self.until, self.wished = now, now, False
        if error.retry_after is not None:
            self.until, self.wished = max(self.until, now + error.retry_after), True
        elif news:
            self.until = now + self.pause
        if self.reason is None:
            _log.warning("%r is out for %.3g s, the others are asked: %s", self.backend, self.until - now, error)
        self.reason = str(error)

    def works(self, begun: float) -> None:
        """End its rest; the success of a request that was begun before is no news."""
        if self.reason is not None and begun >= self.since:
            _log.warning("%r answers again", self.backend)
            self.reason, self.until, self.pause, self.wished = None, -math.inf, 0.0, False


def _idle(backends: Sequence[Backend]) -> list[_Line]:
    return [_Line(backend) for backend in backends]


def _chosen(lines: Sequence[_Line], failed: Collection[_Line], beginnings: Sequence[int]) -> _Line | None:
    """Whom to ask next, None where nobody is left."""
    now = time.monotonic()
    left = [line for line in lines if line not in failed]
    if able := [line for line in left if not line.rests(now)]:
        least = min(line.open for line in able)
        near = [line for line in able if line.open <= least + _SLACK]
        return min(near, key=lambda line: (-line.knows(beginnings), line.open))
    return min((line for line in left if not line.forbids(now)), key=lambda line: line.until, default=None)


def _beginnings(request: Request) -> list[int]:
    """A number for each beginning of what comes before the first assistant message, by length; the last is all of it.

    So a thought and its forced label have the same ones. None for a text too short to be worth it.
    """
    asked = takewhile(lambda message: message["role"] != "assistant", request.messages)
    text = "\n".join(message["content"] for message in asked)
    numbers: list[int] = []
    number = 0
    for start in range(0, len(text) if len(text) >= _STEP else 0, _STEP):
        number = hash((number, text[start : start + _STEP]))
        numbers.append(number)
    return numbers


def _unavailable(lines: Sequence[_Line], failed: Mapping[_Line, str]) -> BackendUnavailable:
    """Each with its reason; to be asked again when the first of them wishes, if all have a wish."""
    now = time.monotonic()
    reasons = [f"{line.backend!r}: {failed.get(line, line.reason)}" for line in lines]
    waits = [max(0.0, line.until - now) for line in lines if line.wished]
    retry_after = min(waits) if len(waits) == len(lines) else None
    return BackendUnavailable(f"no backend is available: {'; '.join(reasons)}", retry_after)


spread = Spread
