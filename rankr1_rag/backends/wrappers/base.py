"""A backend that is asked at most `n` things at once.

Knows nothing of models, and nothing of why.

What `stored`, `retried` and `limited` share: a backend that looks like the one it stands around.

Knows nothing of what the wrappers do.
"""

from __future__ import annotations

import asyncio
from functools import partial

from rankr1_rag.backends import Backend, Request
from rankr1_rag.concurrency.event_loop import PerLoop
from rankr1_rag.types import Completion


class Around:
    """Everything of `backend`, unchanged; a wrapper overrides `complete`."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @property
    def model(self) -> str:
        """As the backend's."""
        return self.backend.model

    @property
    def identity(self) -> str:
        """As the backend's: what is around it changes no completion."""
        return self.backend.identity

    @property
    def context(self) -> int | None:
        """As the backend's."""
        return self.backend.context

    @property
    def can_continue(self) -> bool:
        """As the backend's."""
        return self.backend.can_continue

    def count(self, text: str) -> int | None:
        """As the backend's."""
        return self.backend.count(text)

    async def complete(self, request: Request) -> Completion:
        """As the backend's."""
        return await self.backend.complete(request)

    async def close(self) -> None:
        """Close the backend."""
        await self.backend.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__.lower()}({self.backend!r})"


class Limited(Around):
    """At most `n` requests under way at once on an event loop; the others wait in the order they came.

    Sync callers inside a running loop have `n` of their own: the others may wait for that loop, which stands still.
    """

    def __init__(self, backend: Backend, n: int) -> None:
        if n < 1:
            raise ValueError(f"limited needs n >= 1, got {n}: with {n} nothing would ever be asked")
        super().__init__(backend)
        self.n = n
        self._slots = PerLoop(partial(asyncio.Semaphore, n), per_caller=True)

    async def complete(self, request: Request) -> Completion:
        """Complete as soon as one of the `n` slots is free."""
        async with self._slots.get():
            return await self.backend.complete(request)

    def __repr__(self) -> str:
        return f"limited({self.backend!r}, {self.n})"


limited = Limited
