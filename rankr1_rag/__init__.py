"""Rank-R1 for retrieval-augmented generation: a reranker that reasons before it picks.

    from rankr1_rag import Reranker
    ranking = Reranker(k=3).rank("who wrote Dracula?", ["a passage", "another", "a third"])
    ranking.order, ranking.passages, ranking.cost, ranking.explain(1)

Importing this loads nothing: each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankr1_rag.errors import (
        BackendError,
        BackendUnavailable,
        FileError,
        LoopError,
        PromptTooLong,
        RankR1Error,
        StoreError,
        UnparsedError,
    )
    from rankr1_rag.reranker import Reranker
    from rankr1_rag.types import Comparison, Completion, Cost, Explanation, Passage, Query, Ranking, Truncated

__all__ = [
    "BackendError",
    "BackendUnavailable",
    "Comparison",
    "Completion",
    "Cost",
    "Explanation",
    "FileError",
    "LoopError",
    "Passage",
    "PromptTooLong",
    "Query",
    "RankR1Error",
    "Ranking",
    "Reranker",
    "StoreError",
    "Truncated",
    "UnparsedError",
]
_TYPES = ("Comparison", "Completion", "Cost", "Explanation", "Passage", "Query", "Ranking", "Truncated")
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "reranker" if name == "Reranker" else "types" if name in _TYPES else "errors"
    return getattr(import_module(f"rankr1_rag.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
