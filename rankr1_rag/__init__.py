"""Rank-R1 for retrieval-augmented generation: a reranker that reasons before it picks.

    from rankr1_rag import Reranker
    ranking = Reranker(k=3).rank("who wrote Dracula?", ["a passage", "another", "a third"])
    ranking.order, ranking.passages, ranking.cost, ranking.explain(1)

Importing this loads nothing: each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankr1_rag.errors import BackendError as BackendError
    from rankr1_rag.errors import BackendUnavailable as BackendUnavailable
    from rankr1_rag.errors import FileError as FileError
    from rankr1_rag.errors import LoopError as LoopError
    from rankr1_rag.errors import PromptTooLong as PromptTooLong
    from rankr1_rag.errors import RankR1Error as RankR1Error
    from rankr1_rag.errors import StoreError as StoreError
    from rankr1_rag.errors import UnparsedError as UnparsedError
    from rankr1_rag.reranker import Reranker as Reranker
    from rankr1_rag.types import Comparison as Comparison
    from rankr1_rag.types import Completion as Completion
    from rankr1_rag.types import Cost as Cost
    from rankr1_rag.types import Explanation as Explanation
    from rankr1_rag.types import Passage as Passage
    from rankr1_rag.types import Query as Query
    from rankr1_rag.types import Ranking as Ranking

_HOME = {
    "BackendError": "errors",
    "BackendUnavailable": "errors",
    "Comparison": "types",
    "Completion": "types",
    "Cost": "types",
    "Explanation": "types",
    "FileError": "errors",
    "LoopError": "errors",
    "Passage": "types",
    "PromptTooLong": "errors",
    "Query": "types",
    "RankR1Error": "errors",
    "Ranking": "types",
    "Reranker": "reranker",
    "StoreError": "errors",
    "UnparsedError": "errors",
}

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
    "UnparsedError",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"rankr1_rag.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
