"""A reranker in the shape of sentence-transformers' `CrossEncoder`, for code that was written for one.

    model = CrossEncoder("cross-encoder/ms-marco-MiniLM-L6-v2")     # before
    model = RankR1CrossEncoder()                                    # after: the one line
    model.rank("who wrote Dracula?", documents, top_k=3, return_documents=True)

Source of the shape: sbert.net, `CrossEncoder.rank`. Knows `Reranker`; knows nothing of sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rankr1_rag.connect import reranker
from rankr1_rag.reranker import Reranker
from rankr1_rag.types import Ranking

_MEANINGLESS = frozenset(
    {"prompt_name", "prompt", "batch_size", "show_progress_bar", "num_workers", "activation_fn", "activation_fct"}
    | {"apply_softmax", "convert_to_numpy", "convert_to_tensor", "device", "pool", "chunk_size"}
)


class RankR1CrossEncoder:
    """`rank` as cross-encoders have it. There is no `predict`: a pair by itself has no score here.

    Made from a `Reranker`, or from the name of a model with the arguments of `connect` and `Reranker` (`base_url=…`,
    `size=…`); from nothing at all it is the embedded model. `last` is the whole `Ranking` of the last `rank`: the
    reasoning, the cost.
    """

    last: Ranking | None = None

    def __init__(self, model: str | Reranker | None = None, **settings: Any) -> None:  # noqa: ANN401
        if isinstance(model, Reranker) and settings:
            raise TypeError(f"a Reranker has settings of its own: leave out {', '.join(sorted(settings))}")
        self.reranker = model if isinstance(model, Reranker) else reranker({**settings, "model": model})

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        **ignored: object,
    ) -> list[dict[str, Any]]:
        """`[{"corpus_id": position, "score": …, "text": …}, …]`, best first; `text` if `return_documents`.

        All documents where `top_k` is None: then the `k` of the reranker are selected, the rest follow in the order
        given. Scores are strictly decreasing in (0, 1], ordinal. What else a cross-encoder takes (`batch_size`, …)
        means nothing here and is ignored; an argument it does not know either is a TypeError.
        """
        if unknown := sorted(ignored.keys() - _MEANINGLESS):
            raise TypeError(f"rank() got an unexpected keyword argument {unknown[0]!r}")
        self.last = ranking = self.reranker.rank(query, documents, k=top_k)
        results: list[dict[str, Any]] = [
            {"corpus_id": position, "score": score}
            for position, score in zip(ranking.order[:top_k], ranking.scores, strict=False)
        ]
        if return_documents:
            for result in results:
                result["text"] = documents[result["corpus_id"]]
        return results

    def close(self) -> None:
        """Give back the model. Safe to call twice."""
        self.reranker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()
