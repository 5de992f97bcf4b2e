"""A reranker in the shape of sentence-transformers' `CrossEncoder`, for code that was written for one.

    model = CrossEncoder("cross-encoder/ms-marco-MiniLM-L6-v2")     # before
    model = RankR1CrossEncoder()                                    # after: the one line
    model.rank("who wrote Dracula?", documents, top_k=3, return_documents=True)

Source of the shape: sbert.net, `CrossEncoder.rank`. Knows `Reranker`; knows nothing of sentence-transformers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from operator import index
from types import TracebackType
from typing import Any, NoReturn, Self

from rankr1_rag.connect import CONNECTING, RERANKING, reranker
from rankr1_rag.reranker import Reranker
from rankr1_rag.settings import check_within
from rankr1_rag.types import Ranking

_OF_A_CROSS_ENCODER = frozenset(
    {"num_labels", "max_length", "device", "revision", "cache_folder", "cache_dir", "local_files_only"}
    | {"trust_remote_code", "token", "prompts", "default_prompt_name", "activation_fn", "default_activation_function"}
    | {"model_kwargs", "automodel_args", "tokenizer_kwargs", "processor_kwargs", "tokenizer_args", "config_kwargs"}
    | {"config_args", "model_card_data"}
)
_OF_ITS_RANK = frozenset(
    {"prompt_name", "prompt", "batch_size", "show_progress_bar", "num_workers", "activation_fn", "activation_fct"}
    | {"apply_softmax", "convert_to_numpy", "convert_to_tensor", "device", "pool", "chunk_size"}
)


class RankR1CrossEncoder:
    """`rank` as cross-encoders have it; `predict` cannot be had, as a pair by itself has no score here.

    Made from a `Reranker`, or from the name of a model with the arguments of `connect` and `Reranker` (`base_url=…`,
    `size=…`); from nothing at all it is the embedded model. `last` is the whole `Ranking` of the last `rank`: the
    reasoning, the cost. What else a cross-encoder takes (`device`, `max_length`, `batch_size`, …) means nothing here
    and is ignored; an argument that it does not know either is a TypeError.
    """

    last: Ranking | None = None

    def __init__(self, model: str | os.PathLike[str] | Reranker | None = None, **settings: Any) -> None:  # noqa: ANN401
        if isinstance(model, Reranker):
            if own := sorted(settings.keys() & (CONNECTING | RERANKING | {"backend"})):
                raise TypeError(f"a Reranker has settings of its own: leave out {', '.join(own)}")
            _check("RankR1CrossEncoder", settings, _OF_A_CROSS_ENCODER)
            self.reranker = _given_alone(model)
            return
        if model is not None and not isinstance(model, (str, os.PathLike)):
            raise TypeError(f"model={model!r:.100} is neither a Reranker nor the name of a model")
        _check("RankR1CrossEncoder", settings, _OF_A_CROSS_ENCODER | CONNECTING | RERANKING | {"backend"})
        given = {name: value for name, value in settings.items() if name not in _OF_A_CROSS_ENCODER}
        self.reranker = _given_alone(reranker({**given, "model": model}))

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
        given. Scores are strictly decreasing floats in (0, 1], ordinal.
        """
        _check("rank", ignored, _OF_ITS_RANK)
        documents = list(documents)
        if top_k is not None:
            top_k = check_within("top_k", index(top_k), 1)
        self.last = ranking = self.reranker.rank(query, documents, k=top_k)
        ranking.log_problems()
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
        """Give back the model. Safe to call twice."""
        self.reranker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RankR1CrossEncoder({self.reranker.plan.backend.model!r})"


def _given_alone(reranker: Reranker) -> Reranker:
    if reranker.retrieve is not None:
        raise ValueError(
            "retrieve= finds documents that are at no position of those given: leave it out, or use Reranker"
        )
    return reranker


def _check(name: str, given: dict[str, Any], known: frozenset[str]) -> None:
    if unknown := sorted(given.keys() - known):
        raise TypeError(f"{name}() got an unexpected keyword argument {unknown[0]!r}")
