"""How the paper asked, and where a reranker asks otherwise.

Set size 20, the top 10 of 100 by heapsort, greedy, at most 2,048 completion tokens (2,032 of thought, 16 of answer), no
label forced; queries and passages clipped as the target says. Knows settings; asks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankr1_eval.asked import LATER, asked_with
from rankr1_eval.reproduce.targets import Target
from rankr1_rag.checkpoints import CHECKPOINTS
from rankr1_rag.reranker import Reranker

DEPTH = 100
THINK_TOKENS = 2032
PAPER: Mapping[str, Any] = {
    "k": 10,
    "size": 20,
    "algorithm": "heapsort",
    "votes": 1,
    "temperature": 0.0,
    "think_tokens": THINK_TOKENS,
    "force": "never",
    "fusion": None,
    "prefix_order": False,
    "hops": 1,
}


def departures(reranker: Reranker, target: Target, depth: int) -> tuple[str, ...]:
    """Each setting that is not the paper's, with the paper's: "size 10, not 20"."""
    plan = reranker.plan
    clips = {"query_tokens": target.query_tokens, "passage_tokens": target.passage_tokens}
    paper: dict[str, Any] = {**PAPER, **clips, "depth": DEPTH}
    if (known := CHECKPOINTS.get(plan.backend.model)) is not None:
        paper["format"] = known.format.name
    if not plan.format.reasoning:
        del paper["think_tokens"], paper["force"]
    here = {**LATER, **asked_with(reranker), "depth": depth}
    return tuple(f"{name} {here[name]}, not {value}" for name, value in paper.items() if here[name] != value)
