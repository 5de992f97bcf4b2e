"""A reranker in the shape of sentence-transformers' `CrossEncoder` (sbert.net), for code that was written for one.

model = CrossEncoder("cross-encoder/ms-marco-MiniLM-L6-v2")     # before
model = RankR1CrossEncoder()                                    # after: the one line
model.rank("who wrote Dracula?", documents, top_k=3, return_documents=True)
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Sequence
from operator import index
from types import TracebackType
from typing import Any, NoReturn, Self

from rankr1_rag.connect import CONNECTING, RERANKING, reranker
from rankr1_rag.reranker import Reranker
from rankr1_rag.settings import check_within, no_such_option
from rankr1_rag.types import Ranking

log = logging.getLogger("rankr1_rag")
KNOWN = CONNECTING | RERANKING


class RankR1CrossEncoder:
    """`rank` as cross-encoders have it. There is no `predict`: a pair by itself has no score here.

    Made from a `Reranker`, or from the name of a model with the options of `connect` and `Reranker` (`base_url=…`,
    `size=…`); without arguments it is the embedded model. `last` is the whole `Ranking` of the last `rank`: reasoning
    and cost. Other arguments, which only a cross-encoder has (`device`, `max_length`, …), are ignored.
    """

    last: Ranking | None = None

    def __init__(self, model: str | os.PathLike[str] | Reranker | None = None, **settings: Any) -> None:  # noqa: ANN401
        ignore("RankR1CrossEncoder", settings.keys() - KNOWN, KNOWN)
        own = {name: value for name, value in settings.items() if name in KNOWN}
        if isinstance(model, Reranker) and own:
            raise TypeError(f"a Reranker has options of its own: leave out {', '.join(sorted(own))}")
        if model is not None and not isinstance(model, (Reranker, str, os.PathLike)):
            raise TypeError(f"model={model!r:.100} is neither a Reranker nor the name of a model")
        self.reranker = model if isinstance(model, Reranker) else reranker({**own, "model": model})
        if self.reranker.retrieve is not None:
            raise ValueError(
                "retrieve= finds documents that have no position in the list: leave it out, or use Reranker"
            )

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        **_: object,
    ) -> list[dict[str, Any]]:
        """`[{"corpus_id": position, "score": …, "text": …}, …]`, best first; `text` if `return_documents`.

        All documents if `top_k` is None: the `k` of the reranker are selected, the rest follow in first-stage order.
        Scores are strictly decreasing floats in (0, 1], ordinal.
        """
        ignore("rank", _, ("top_k", "return_documents"))
        if isinstance(documents, str):
            raise TypeError("documents is one str: pass a list of texts")
        documents = list(documents)
        if any(isinstance(one, tuple) for one in documents):
            raise TypeError("documents are pairs: pass a list of texts, or use Reranker for first-stage scores")
        if top_k is not None:
            whole = hasattr(top_k, "__index__") and not isinstance(top_k, bool)  # NumPy's too
            top_k = check_within("top_k", index(top_k) if whole else top_k, 1)
        self.last = ranking = self.reranker.rank(query, documents, k=top_k)
        results: list[dict[str, Any]] = [
            {"corpus_id": position, "score": score}
            for position, score in zip(ranking.order[:top_k], ranking.scores, strict=False)
        ]
        if return_documents:
            for result in results:
                result["text"] = documents[result["corpus_id"]]
        return results

    def predict(self, *_: object, **__: object) -> NoReturn:
        """TypeError: this reranker compares passages with each other, so a pair by itself has no score."""
        raise TypeError("a pair by itself has no score here: use rank(query, documents), which compares the documents")

    def close(self) -> None:
        """Close the model. Safe to call twice."""
        self.reranker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RankR1CrossEncoder({self.reranker.plan.backend.model!r})"


def ignore(function: str, names: Iterable[str], known: Collection[str]) -> None:
    """Log arguments that are ignored. TypeError for a misspelt option."""
    for name in sorted(names):
        problem = no_such_option(name, known)
        if "did you mean" in problem:
            raise TypeError(f"{function}(): {problem}")
        log.debug("%s() ignores %s=: it has no meaning for a reranker", function, name)
