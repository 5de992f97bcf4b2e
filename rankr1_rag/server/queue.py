"""The queries that wait: a number of them open, a number waiting, and the keys in turn."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque

from rankr1_rag.server.contract import Refusal

LONGEST_WAIT = 60
"""Seconds: the most that clients are asked to wait before they try again."""


class QueueFull(Refusal):
    """No room to wait; `retry_after` is when there may be some, in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(429, f"too many queries are waiting: try again in {retry_after} s", retry_after=retry_after)


class FairQueue:
    """At most `most` queries open and `room` waiting, on one event loop. A free place goes to the keys in turn.

    In a full queue the key with most waiting queries gives its newest place to a key with fewer.
    """

    def __init__(self, most: int, room: int) -> None:
        self.most, self.room = most, room
        self.open = self.waiting = 0
        self.queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self.seconds = 1.0

    def longest(self, key: str) -> deque[asyncio.Future[None]]:
        """The queue that gives a place to a new query of this key if all are taken. QueueFull where none does."""
        longest = max(self.queues.values(), key=len, default=deque[asyncio.Future[None]]())
        if len(longest) <= len(self.queues.get(key, ())) + 1:
            raise QueueFull(self.retry_after)
        return longest

    def check_room(self, key: str) -> None:
        """QueueFull for a query of this key that would be refused."""
        if self.open >= self.most and self.waiting >= self.room:
            self.longest(key)

    async def enter(self, key: str) -> None:
        """Take a place among the open queries, as soon as there is one; QueueFull. `done` gives it back."""
        if self.open < self.most:
            self.open += 1
            return
        if self.waiting >= self.room:
            victim = self.longest(key)[-1]
            if not victim.done():  # it may be cancelled, and its task not have run since
                victim.set_exception(QueueFull(self.retry_after))
            self.leave(victim)
        turn = asyncio.get_running_loop().create_future()
        self.queues.setdefault(key, deque()).append(turn)
        self.waiting += 1
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.pass_on()  # it was cancelled with a place in its hand
            else:
                self.leave(turn)
            raise

    def leave(self, turn: asyncio.Future[None]) -> None:
        """Take a query out of its queue, unless it is out already."""
        for key, queue in self.queues.items():
            if turn in queue:
                queue.remove(turn)
                self.waiting -= 1
                if not queue:
                    del self.queues[key]
                return

    def done(self, seconds: float) -> None:
        """A query is done, after this time in its place."""
        self.seconds += (seconds - self.seconds) / 20
        self.pass_on()

    def pass_on(self) -> None:
        """Give a place to the next key's oldest query."""
        while self.queues:
            key, queue = next(iter(self.queues.items()))
            turn = queue.popleft()
            self.waiting -= 1
            self.queues.move_to_end(key)
            if not queue:
                del self.queues[key]
            if not turn.done():
                turn.set_result(None)
                return
        self.open -= 1

    @property
    def retry_after(self) -> int:
        """Seconds in which the present queue will be done, as it seems."""
        return min(LONGEST_WAIT, max(1, math.ceil(self.seconds * (self.waiting + 1) / self.most)))
