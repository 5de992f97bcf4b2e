"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections import Counter as Tally

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from rankr1_rag.types import Comparison, Ranking

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
ROUNDS = (1, 2, 3, 5, 8, 12, 20, 35, 60, 100, 300)


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rankr1_requests", "Requests by route and status.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "rankr1_request_duration_seconds",
            "Seconds from the head of a request to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge("rankr1_queries_in_flight", "Queries that are open.", registry=self.registry)
        self.queued = Gauge("rankr1_queries_waiting", "Queries that wait for a place.", registry=self.registry)
        self.comparisons = Counter(
            "rankr1_comparisons", "Comparisons by the form of the answer.", ["outcome"], registry=self.registry
        )
        self.rounds = Histogram("rankr1_rounds", "Rounds of a query.", buckets=ROUNDS, registry=self.registry)
        self.tokens = Counter("rankr1_tokens", "Tokens by type.", ["type"], registry=self.registry)
        self.degraded = Counter(
            "rankr1_degraded", "Queries whose order is less than it could be.", ["reason"], registry=self.registry
        )

    def count(self, ranking: Ranking) -> None:
        """Count what a ranking took."""
        cost = ranking.cost
        for name, n in Tally(map(outcome, ranking.trace)).items():
            self.comparisons.labels(name).inc(n)
        self.rounds.observe(cost.rounds)
        for name in ("prompt", "cached", "completion", "reasoning"):
            self.tokens.labels(name).inc(getattr(cost, f"{name}_tokens"))
        if ranking.failure is not None:
            self.degraded.labels("failure").inc()
        if ranking.truncated is not None:
            self.degraded.labels(ranking.truncated.reason).inc()

    def text(self) -> bytes:
        """All figures in the format of Prometheus."""
        return generate_latest(self.registry)


def outcome(comparison: Comparison) -> str:
    """How the answer of a comparison was found."""
    if not comparison.parsed:
        return "unparsed"
    if comparison.forced:
        return "forced"
    return "lenient" if comparison.lenient else "parsed"
