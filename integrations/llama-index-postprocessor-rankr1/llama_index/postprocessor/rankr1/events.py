"""The events of a reranking, of both kinds that LlamaIndex has: those of its dispatcher and the legacy callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.schema import NodeWithScore, QueryType

dispatcher = get_dispatcher(__name__)
Nodes = list[NodeWithScore]
Reranking = AbstractContextManager[tuple[str, Nodes, dict[str, Any]]]


@contextmanager
def reranking(
    callbacks: CallbackManager, query: QueryType | None, nodes: Nodes, top_n: int | None, model: str
) -> Iterator[tuple[str, Nodes, dict[str, Any]]]:
    """Start and end events around a block that fills in the nodes of the result, and tags of the end event.

    Yields the text of the query as well; ValueError without one. After an error the end events have no nodes but the
    error.
    """
    text = getattr(query, "query_str", query)
    known = query if isinstance(text, str) else None
    top_n = top_n or len(nodes)
    result: Nodes = []
    tags: dict[str, Any] = {}
    payload: dict[str, Any] = {EventPayload.NODES: nodes, EventPayload.QUERY_STR: text}
    payload |= {EventPayload.TOP_K: top_n, EventPayload.MODEL_NAME: model}
    dispatcher.event(ReRankStartEvent(query=known, nodes=nodes, top_n=top_n, model_name=model))
    with callbacks.event(CBEventType.RERANKING, payload=payload) as event:
        ended: dict[str, Any] = {EventPayload.NODES: result}
        try:
            if not isinstance(text, str):
                raise ValueError(f"RankR1Rerank needs a query (got {query!r:.100}): use query_str= or query_bundle=")
            yield text, result, tags
        except BaseException as error:
            result.clear()
            ended = {EventPayload.EXCEPTION: error}
            tags["exception"] = error
            dispatcher.event(ExceptionEvent(exception=error))
            raise
        finally:
            event.on_end(payload=ended)
            dispatcher.event(ReRankEndEvent(nodes=result, tags=tags))
