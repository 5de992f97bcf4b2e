"""Several backends with one model as one: they share the load, and a job outlives the loss of a server."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rankr1_rag.backends import Backend, Request
from rankr1_rag.concurrency.event_loop import PerLoop
from rankr1_rag.errors import BackendUnavailable
from rankr1_rag.types import Completion

log = logging.getLogger("rankr1_rag.load_balancer")


@dataclass(slots=True, eq=False)
class Endpoint:
    """A backend with its open requests and its cooldown. `failure`: why it is out, None while it works."""

    backend: Backend
    open_requests: int = 0
    probes: int = 0
    failure: str | None = None
    failed_at: float = -math.inf
    retry_at: float = -math.inf
    cooldown: float = 0.0
    has_retry_after: bool = False

    def priority(self) -> tuple[bool, float]:
        """The smallest is asked next: the least busy that is not cooling down. A cooldown ends with a good probe."""
        is_cooling_down = self.failure is not None and (time.monotonic() < self.retry_at or self.probes > 0)
        return is_cooling_down, self.retry_at if is_cooling_down else self.open_requests

    def fail(self, started: float, error: BackendUnavailable, first_cooldown: float, longest_cooldown: float) -> None:
        """Begin a cooldown, unless the request is older than the present one: then its failure is no news."""
        now, retry_after = time.monotonic(), error.retry_after
        if started >= self.retry_at:
            self.cooldown = min(2 * self.cooldown or first_cooldown, longest_cooldown)
            self.failed_at, self.has_retry_after = now, retry_after is not None
            self.retry_at = now + (self.cooldown if retry_after is None else retry_after)
        elif retry_after is not None:
            self.retry_at, self.has_retry_after = max(self.retry_at, now + retry_after), True
        if self.failure is None:
            log.warning("%r is out for %.3g s, the others are asked: %s", self.backend, self.retry_at - now, error)
        self.failure = str(error)

    def succeed(self, started: float) -> None:
        """End the cooldown, unless the request is older than the failure."""
        if self.failure is not None and started >= self.failed_at:
            log.warning("%r answers again", self.backend)
            self.failure, self.retry_at, self.cooldown, self.has_retry_after = None, -math.inf, 0.0, False


class LoadBalanced:
    """Sends each request to the working backend with the fewest open requests, in turn among equals.

    A backend that raises `BackendUnavailable` cools down: `first_cooldown` seconds, twice as long after each further
    failure, at most `longest_cooldown`, or as long as its Retry-After says. Another backend takes its request at once.
    The first request after the cooldown is a probe. If all cool down, they are asked nevertheless, except before their
    Retry-After. If all have failed, `BackendUnavailable` lists the reasons. Each loss and each recovery is logged once.

    Any other error is raised immediately: authentication and unknown-model errors must not hide behind the other
    backends. The state belongs to the running event loop. ValueError for no backend, or for different models.
    """

    def __init__(
        self, backends: Sequence[Backend], *, first_cooldown: float = 2.0, longest_cooldown: float = 60.0
    ) -> None:
        self.backends = tuple(backends)
        if not self.backends:
            raise ValueError("load_balanced needs at least one backend, got none")
        if len(models := sorted({backend.model for backend in self.backends})) > 1:
            raise ValueError(f"load_balanced needs backends of one model, got {', '.join(map(repr, models))}")
        self.model = models[0]
        self.first_cooldown = first_cooldown
        self.longest_cooldown = longest_cooldown
        self._endpoints: PerLoop[list[Endpoint]] = PerLoop(self._start)

    def _start(self) -> list[Endpoint]:
        return [Endpoint(backend) for backend in self.backends]

    @property
    def identity(self) -> str:
        """Their common identity, or all of theirs, in whatever order they are."""
        identities = sorted({backend.identity for backend in self.backends})
        # "spread" was the name of this wrapper: completions in existing stores stay valid.
        return identities[0] if len(identities) == 1 else "spread:" + json.dumps(identities)

    @property
    def context(self) -> int | None:
        """The smallest known context."""
        return min((one for backend in self.backends if (one := backend.context) is not None), default=None)

    @property
    def can_continue(self) -> bool:
        """Whether all of them continue a final assistant message."""
        return all(backend.can_continue for backend in self.backends)

    @property
    def capacity(self) -> int | None:
        """What all of them compute at once, None if one does not say."""
        found = [getattr(backend, "capacity", None) for backend in self.backends]
        return sum(found) if all(found) else None

    def count(self, text: str) -> int | None:
        """The number of tokens, from the first backend with a tokenizer."""
        return next((n for backend in self.backends if (n := backend.count(text)) is not None), None)

    async def complete(self, request: Request) -> Completion:
        """Complete, or raise; each backend is asked at most once. Cancelling abandons the request."""
        endpoints, failures, now = self._endpoints.get(), dict[Endpoint, str](), time.monotonic
        while left := [
            one for one in endpoints if one not in failures and not (one.has_retry_after and now() < one.retry_at)
        ]:
            endpoint = min(left, key=Endpoint.priority)
            endpoints.remove(endpoint)
            endpoints.append(endpoint)  # equals take turns
            started, is_probe = now(), endpoint.failure is not None
            endpoint.open_requests += 1
            endpoint.probes += is_probe
            try:
                completion = await endpoint.backend.complete(request)
            except BackendUnavailable as error:
                endpoint.fail(started, error, self.first_cooldown, self.longest_cooldown)
                failures[endpoint] = str(error)
            else:
                endpoint.succeed(started)
                return completion
            finally:
                endpoint.open_requests -= 1
                endpoint.probes -= is_probe
        reasons = "; ".join(f"{one.backend!r}: {failures.get(one, one.failure)}" for one in endpoints)
        waits = [max(0.0, one.retry_at - now()) for one in endpoints if one.has_retry_after]
        retry_after = min(waits) if len(waits) == len(endpoints) else None
        raise BackendUnavailable(f"no backend is available: {reasons}", retry_after)

    async def close(self) -> None:
        """Close all, whatever happens; raises the exception of the first that could not be closed."""
        outcomes = await asyncio.gather(*(backend.close() for backend in self.backends), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    def __repr__(self) -> str:
        return f"load_balanced({list(self.backends)!r})"


load_balanced = LoadBalanced
