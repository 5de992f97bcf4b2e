"""A backend that is asked again if it was unavailable. All retries are made here: the backends make none."""

from __future__ import annotations

import asyncio
import random
import time

from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.wrappers.base import BackendWrapper
from rankr1_rag.errors import BackendUnavailable
from rankr1_rag.types import Completion


class Retried(BackendWrapper):
    """Up to `attempts` attempts within `patience` seconds. Only `BackendUnavailable` is retried.

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
            await asyncio.sleep(wait)
            window *= 2


retried = Retried
