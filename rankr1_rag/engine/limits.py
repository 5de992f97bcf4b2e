"""The limits of one query, a deadline and a token budget, and the function that gets its events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from rankr1_rag.backends import on_text
from rankr1_rag.concurrency.event_loop import as_exception
from rankr1_rag.selection import Set
from rankr1_rag.types import Comparison, ComparisonAnswered, ComparisonOpened, ComparisonText, Event, OnEvent, Reason

T = TypeVar("T")
Ask = tuple[int, Set, int]
"""What no two comparisons of a query have in common: round, set and sample."""


class Limits:
    """Seconds from now and tokens that a query has, None is no limit; `ended` is done once one of them is reached.

    Whatever `on_event` raises ends the query, too: it is the exception of `ended`.
    """

    def __init__(self, seconds: float | None, tokens: int | None, on_event: OnEvent | None) -> None:
        self.seconds, self.tokens, self.on_event = seconds, tokens, on_event
        self.began, self.used = time.monotonic(), 0
        self.ended: asyncio.Future[Reason] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.numbers: dict[Ask, int] = {}

    def begin(self) -> asyncio.Future[Reason]:
        """Start the clock, on the loop of the query."""
        loop = asyncio.get_running_loop()
        self.ended = loop.create_future()
        if self.seconds is not None:
            self.timer = loop.call_later(self.began + self.seconds - time.monotonic(), self.end, "deadline")
        return self.ended

    def shorten(self, seconds: float) -> None:
        """End the query these seconds from now, unless its deadline is sooner."""
        in_all = time.monotonic() - self.began + seconds
        if self.seconds is None or in_all < self.seconds:
            self.stop_clock()
            self.seconds, self.timer = in_all, asyncio.get_running_loop().call_later(seconds, self.end, "ended")

    def stop_clock(self) -> None:
        """Forget the deadline."""
        if self.timer is not None:
            self.timer.cancel()

    def end(self, reason: Reason) -> None:
        """End the query, unless it has ended."""
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(reason)

    @property
    def used_up(self) -> bool:
        """Whether no token is left."""
        return self.tokens is not None and self.used >= self.tokens

    def opened(self, ask: Ask, known: Set) -> None:
        """A comparison begins. CancelledError once the query has ended, also for a backend that cannot be cancelled."""
        if self.used_up:
            self.end("budget_tokens")
        if self.ended is None or self.ended.done():
            raise asyncio.CancelledError
        self.numbers[ask] = len(self.numbers)
        self.emit(ComparisonOpened(self.numbers[ask], ask[0], ask[1], known))

    async def heard(self, ask: Ask, request: Coroutine[Any, Any, T]) -> T:
        """Await the request of a comparison, and pass on its text as it comes."""
        if self.on_event is None:
            return await request
        number = self.numbers[ask]
        before = on_text.set(lambda start, text: self.emit(ComparisonText(number, start, text)))
        try:
            return await request
        finally:
            on_text.reset(before)

    def answered(self, comparison: Comparison) -> None:
        """A comparison is complete."""
        completion = comparison.completion
        self.used += completion.prompt_tokens + completion.completion_tokens
        self.emit(ComparisonAnswered(self.numbers[comparison.round, comparison.set, comparison.sample], comparison))

    def emit(self, event: Event) -> None:
        """Pass an event on, unless the query has ended."""
        if self.on_event is None or self.ended is None or self.ended.done():
            return
        try:
            self.on_event(event)
        except BaseException as error:
            self.ended.set_exception(as_exception(error))
            self.ended.exception()  # else asyncio logs it, if the caller leaves now
