"""What the orders of a reranker depend on, for the first line of their records. Knows settings; asks nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from rankr1_rag.reranker import Reranker

BESIDE = frozenset({"backend", "in_flight", "on_failure", "retrieve"})
LATER: Mapping[str, object] = {"hops": 1}
"""Settings that came later, as it was before: told where they are otherwise, so that runs of that time go on."""


def asked_with(reranker: Reranker) -> dict[str, object]:
    """Its settings, the open ones decided, and the identity of its model; without what is speed and patience.

    Of `retrieve` it is told that there is one.
    """
    plan = reranker.plan
    told = {field.name: getattr(reranker, field.name) for field in fields(reranker) if field.name not in BESIDE}
    decided = {field.name: getattr(plan, field.name) for field in fields(plan) if field.name in told}
    again = {"retrieve": True} if reranker.retrieve is not None else {}
    asked = {"model": plan.backend.identity, **told, **decided, **again, "format": plan.format.name}
    return {name: value for name, value in asked.items() if (name, value) not in LATER.items()}
