"""What the orders of a reranker depend on, for the first line of their records. Knows settings; asks nothing."""

from __future__ import annotations

from dataclasses import fields

from rankr1_rag.reranker import Reranker

BESIDE = frozenset({"backend", "in_flight", "on_failure"})


def asked_with(reranker: Reranker) -> dict[str, object]:
    """Its settings, the open ones decided, and the identity of its model; without what is speed and patience."""
    plan = reranker.plan
    told = {field.name: getattr(reranker, field.name) for field in fields(reranker) if field.name not in BESIDE}
    decided = {field.name: getattr(plan, field.name) for field in fields(plan) if field.name in told}
    return {"model": plan.backend.identity, **told, **decided, "format": plan.format.name}
