"""Several backends with one model as one: failover, and the least busy is asked next."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from time import monotonic as now

from rankr1_rag.backends import Backend, Request
from rankr1_rag.concurrency.event_loop import PerLoop
from rankr1_rag.errors import BackendUnavailable
from rankr1_rag.types import Completion

log = logging.getLogger("rankr1_rag.load_balancer")


@dataclass(slots=True, eq=False)
class Endpoint:
    """A backend and its state; `cooldown` is 0 while it works, `barred_until` the end of its Retry-After."""

    backend: Backend
    open_requests: int = 0
    failure: str = ""
    cooldown: float = 0.0
    retry_at: float = 0.0
    barred_until: float = 0.0

    def priority(self) -> tuple[float, int]:
        """The smallest is asked next. A cooldown ends with one good probe, for which there is no second one."""
        cools_down = self.cooldown and (self.open_requests or now() < self.retry_at)
        return self.retry_at if cools_down else 0.0, self.open_requests


class LoadBalanced:
    """Sends each request to the working backend with the fewest open requests, in turn among equals.

    After `BackendUnavailable` another one is asked at once, and the failed one cools down for its Retry-After, or for
    `first_cooldown` seconds, doubled by each failed probe up to `longest_cooldown`. If all cool down, they are asked
    nevertheless, except before their Retry-After; if all fail, their reasons are raised. Other errors are raised at
    once: a wrong key or model must not hide behind the other backends. ValueError for none, or for different models.
    """

    def __init__(
        self, backends: Sequence[Backend], *, first_cooldown: float = 2.0, longest_cooldown: float = 60.0
    ) -> None:
        if len(models := sorted({backend.model for backend in backends})) != 1:
            raise ValueError(f"load_balanced needs backends of one model, got {', '.join(map(repr, models)) or 'none'}")
        self.model = models[0]
        identities = sorted({backend.identity for backend in backends})
        # "spread" was the name of this wrapper: completions in existing stores stay valid.
        self.identity = identities[0] if len(identities) == 1 else "spread:" + json.dumps(identities)
        self.context = min((one for backend in backends if (one := backend.context) is not None), default=None)
        self.can_continue = all(backend.can_continue for backend in backends)
        self.backends, self.first_cooldown, self.longest_cooldown = tuple(backends), first_cooldown, longest_cooldown
        self._endpoints: PerLoop[list[Endpoint]] = PerLoop(list)

    @property
    def capacity(self) -> int | None:
        """What all of them compute at once, None if one does not say."""
        found: list[int | None] = [getattr(backend, "capacity", None) for backend in self.backends]
        known = [one for one in found if one is not None]
        return sum(known) if len(known) == len(found) else None

    @cached_property
    def special_tokens(self) -> frozenset[str]:
        """The special tokens of all of them."""
        return frozenset[str]().union(*(getattr(backend, "special_tokens", ()) for backend in self.backends))

    def count(self, text: str) -> int | None:
        """The number of tokens, from the first backend with a tokenizer."""
        return next((n for backend in self.backends if (n := backend.count(text)) is not None), None)

    async def complete(self, request: Request) -> Completion:
        """Complete, or raise; each backend is asked at most once. Cancelling abandons the request."""
        failures: dict[Endpoint, str] = {}
        endpoints = self._endpoints.get()
        endpoints += [] if endpoints else map(Endpoint, self.backends)
        while left := [one for one in endpoints if one not in failures and one.barred_until <= now()]:
            asked = min(left, key=Endpoint.priority)
            endpoints.append(endpoints.pop(endpoints.index(asked)))  # equals take turns
            asked.open_requests += 1
            started, probes = now(), asked.cooldown > 0
            try:
                completion = await asked.backend.complete(request)
            except BackendUnavailable as error:
                failures[asked] = asked.failure = str(error)
                if is_new := started >= asked.retry_at:  # else the request is older than the cooldown
                    asked.cooldown = min(2 * asked.cooldown or self.first_cooldown, self.longest_cooldown)
                    asked.retry_at = now() + asked.cooldown
                if error.retry_after is not None:
                    asked.retry_at = asked.barred_until = max(asked.barred_until, now() + error.retry_after)
                if is_new and not probes:
                    wait = asked.retry_at - now()
                    log.warning("%r is out for %.3g s, the others are asked: %s", asked.backend, wait, error)
            else:
                if probes and asked.cooldown:
                    log.warning("%r answers again", asked.backend)
                    asked.cooldown = asked.retry_at = 0.0
                return completion
            finally:
                asked.open_requests -= 1
        reasons = "; ".join(f"{one.backend!r}: {failures.get(one, one.failure)}" for one in endpoints)
        wait = min(one.barred_until for one in endpoints) - now()
        raise BackendUnavailable(f"no backend is available: {reasons}", wait if wait > 0 else None)

    async def close(self) -> None:
        """Close all, whatever happens; raises the exception of one that could not be closed."""
        for outcome in await asyncio.gather(*(one.close() for one in self.backends), return_exceptions=True):
            if outcome is not None:
                raise outcome

    def __repr__(self) -> str:
        return f"load_balanced({list(self.backends)!r})"


load_balanced = LoadBalanced
