"""The base of all wrappers, and the simplest of them: a limit of concurrent requests."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from functools import partial

from rankr1_rag.backends import Backend, Request
from rankr1_rag.concurrency.event_loop import PerLoop
from rankr1_rag.errors import BackendUnavailable
from rankr1_rag.types import Completion

log = logging.getLogger("rankr1_rag.retried")


class BackendWrapper:
    """Everything of `backend` but `complete`, which a subclass defines."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @property
    def model(self) -> str:
        """The backend's model."""
        return self.backend.model

    @property
    def identity(self) -> str:
        """The backend's identity: a wrapper changes no completion."""
        return self.backend.identity

    @property
    def context(self) -> int | None:
        """The backend's context."""
        return self.backend.context

    @property
    def can_continue(self) -> bool:
        """Whether the backend continues a final assistant message."""
        return self.backend.can_continue

    @property
    def capacity(self) -> int | None:
        """The backend's number of requests computed at once, None if it does not say."""
        return getattr(self.backend, "capacity", None)

    @property
    def special_tokens(self) -> frozenset[str]:
        """The backend's special tokens, none if it does not say."""
        return getattr(self.backend, "special_tokens", frozenset())

    def count(self, text: str) -> int | None:
        """The backend's number of tokens."""
        return self.backend.count(text)

    async def close(self) -> None:
        """Close the backend."""
        await self.backend.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__.lower()}({self.backend!r})"


class Limited(BackendWrapper):
    """At most `n` concurrent requests on an event loop; the others wait in the order of their arrival.

    Sync callers inside a running loop have `n` slots of their own: requests in the common slots may wait for that loop,
    which is blocked.
    """

    def __init__(self, backend: Backend, n: int) -> None:
        if n < 1:
            raise ValueError(f"limited needs n >= 1 (got n={n})")
        super().__init__(backend)
        self.n = n
        self._slots = PerLoop(partial(asyncio.Semaphore, n), per_caller=True)

    @property
    def capacity(self) -> int:
        """`n`, or less if the backend computes less at once."""
        return min(self.n, super().capacity or self.n)

    async def complete(self, request: Request) -> Completion:
        """Complete as soon as one of the `n` slots is free."""
        async with self._slots.get():
            return await self.backend.complete(request)

    def __repr__(self) -> str:
        return f"limited({self.backend!r}, {self.n})"


limited = Limited


class Retried(BackendWrapper):
    """Up to `attempts` attempts within `patience` seconds. Only `BackendUnavailable` is retried, and logged as INFO.

    Waits are random, in a window that doubles from `first_wait` to `longest_wait` seconds (full jitter). A server's
    Retry-After is honoured; if it exceeds the rest of `patience`, the error is raised immediately.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        attempts: int = 6,
        patience: float = 600.0,
        first_wait: float = 0.5,
        longest_wait: float = 60.0,
    ) -> None:
        if attempts < 1:
            raise ValueError(f"retried needs attempts >= 1 (got attempts={attempts}): the first one counts too")
        super().__init__(backend)
        self.attempts = attempts
        self.patience = patience
        self.first_wait = first_wait
        self.longest_wait = longest_wait

    async def complete(self, request: Request) -> Completion:
        """Complete, or raise the last `BackendUnavailable` with the number of attempts."""
        deadline, window = time.monotonic() + self.patience, self.first_wait
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self.backend.complete(request)
            except BackendUnavailable as error:
                wait = random.uniform(0.0, min(window, self.longest_wait))
                if error.retry_after is not None:
                    # With jitter: the requests that were refused together must not return together.
                    wait = error.retry_after + min(wait, 1.0)
                if attempt >= self.attempts or time.monotonic() + wait >= deadline:
                    attempts = f"{attempt} attempt{'s' if attempt > 1 else ''}"
                    raise BackendUnavailable(f"{error} (gave up after {attempts})", error.retry_after) from error
                log.info("attempt %d of %d failed, the next one is in %.1f s: %s", attempt, self.attempts, wait, error)
            await asyncio.sleep(wait)
            window *= 2


retried = Retried
