"""A backend that is asked again when it was unavailable. Owns all retries: every backend's own are 0.

Knows `BackendUnavailable` and nothing of servers: what may work later is the backend's to say.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.wrappers.base import Around
from rankr1_rag.errors import BackendUnavailable
from rankr1_rag.types import Completion


class Retried(Around):
    """Asks up to `attempts` times and no longer than `patience` seconds, waiting in between.

    A server that says when to come back (Retry-After) is taken at its word; one that asks for more than is left of
    `patience` is given up at once. Else the wait is random, in a window that doubles from `first_wait` to
    `longest_wait` seconds (full jitter). Only `BackendUnavailable` is retried; in the end it is raised with the count
    of attempts, from the last one.
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
            raise ValueError(f"retried needs attempts >= 1, got {attempts}: the first counts too")
        super().__init__(backend)
        self.attempts = attempts
        self.patience = patience
        self.first_wait = first_wait
        self.longest_wait = longest_wait

    async def complete(self, request: Request) -> Completion:
        """Complete, or raise `BackendUnavailable` when attempts or patience are used up."""
        completion: Completion = await self._retrying()(self.backend.complete, request)
        return completion

    def _retrying(self) -> AsyncRetrying:
        # A new one for each request: tenacity keeps its state in the object.
        return AsyncRetrying(
            retry=retry_if_exception_type(BackendUnavailable),
            stop=stop_after_attempt(self.attempts) | stop_before_delay(self.patience),
            wait=self._wait,
            retry_error_callback=_give_up,
            sleep=asyncio.sleep,
        )

    def _wait(self, state: RetryCallState) -> float:
        """Seconds until the next attempt."""
        asked = _error(state).retry_after
        jitter = wait_random_exponential(multiplier=self.first_wait, max=self.longest_wait)(state)
        # Jitter on top of the server's word too: all who were refused together must not come back together.
        return jitter if asked is None else asked + min(jitter, 1.0)


def _error(state: RetryCallState) -> BackendUnavailable:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, BackendUnavailable)  # nothing else is retried
    return error


def _give_up(state: RetryCallState) -> NoReturn:
    error = _error(state)
    tries = f"{state.attempt_number} attempt{'s' if state.attempt_number > 1 else ''}"
    raise BackendUnavailable(f"{error} (gave up after {tries})", error.retry_after) from error


retried = Retried
