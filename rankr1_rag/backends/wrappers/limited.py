"""A backend that is asked at most `n` things at once.

Knows nothing of models, and nothing of why.
"""

from __future__ import annotations

import asyncio
from functools import partial

from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.per_loop import PerLane, PerLoop
from rankr1_rag.backends.wrappers.around import Around
from rankr1_rag.types import Completion


class Limited(Around):
    """At most `n` requests under way at once on an event loop; the others wait in the order they came.

    Sync callers inside a running loop have `n` of their own: the others may wait for that loop, which stands still.
    """

    def __init__(self, backend: Backend, n: int) -> None:
        if n < 1:
            raise ValueError(f"limited needs n >= 1, got {n}: with {n} nothing would ever be asked")
        super().__init__(backend)
        self.n = n
        self._slots = PerLoop(partial(PerLane, partial(asyncio.Semaphore, n)))

    async def complete(self, request: Request) -> Completion:
        """Complete as soon as one of the `n` slots is free."""
        async with self._slots.get().get():
            return await self.backend.complete(request)

    def __repr__(self) -> str:
        return f"limited({self.backend!r}, {self.n})"


limited = Limited
