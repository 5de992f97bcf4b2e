"""Nodes to passages, a ranking to nodes, and the events around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.llms import LLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index.postprocessor.rankr1.llm import LlamaIndexLLM
from pydantic import Field, InstanceOf

from rankr1_rag.frameworks.component import Component, Sources
from rankr1_rag.frameworks.fields import live
from rankr1_rag.types import Passage, Ranking

dispatcher = get_dispatcher(__name__)
HIDDEN = ("excluded_embed_metadata_keys", "excluded_llm_metadata_keys")
Nodes = list[NodeWithScore]
Query = tuple[str, Sources[NodeWithScore], Callable[[Ranking], Nodes]]


class RankR1Rerank(Component, BaseNodePostprocessor):  # type: ignore[misc]
    """Reranks nodes with a model that reasons about them.

        RankR1Rerank(llm=Settings.llm)                                    the model of the pipeline
        RankR1Rerank(model="ielabgroup/Rank-R1-7B-v0.1", base_url="…")    a server
        RankR1Rerank()                                                    the embedded model, on this machine's CPU
        RankR1Rerank(reranker=Reranker(…))                                a reranker of your own

    Returns new `NodeWithScore` objects, scores strictly decreasing in (0, 1]. Metadata is added on a copy of the node,
    hidden from embedder and LLM. The whole `Ranking` goes to `on_ranking` and `ReRankEndEvent.tags["rankr1"]`. Raises
    ValueError without a query, BackendError, UnparsedError, and whatever `retrieve` raises.
    """

    _unpickled: ClassVar[frozenset[str]] = frozenset({"callback_manager"})
    _retrievers: ClassVar[Any] = (BaseRetriever, "retrieve", "aretrieve", "_aretrieve")
    _wrap_llm: ClassVar[Any] = LlamaIndexLLM

    llm: InstanceOf[LLM] | None = live("LLM of LlamaIndex, Settings.llm for example")
    metadata_mode: MetadataMode = Field(default=MetadataMode.NONE, description="Metadata shown too (default: NONE).")

    @classmethod
    def class_name(cls) -> str:
        """The name under which it is serialised."""
        return "RankR1Rerank"

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401
        """The options, without any secret. TypeError for a live object."""
        self._check_no_live()
        return super().to_dict(**kwargs)

    @dispatcher.span
    def _postprocess_nodes(self, nodes: Nodes, query_bundle: QueryBundle | None = None) -> Nodes:
        with self._events(nodes, query_bundle) as (query, found, done):
            return done(self.rank(query, found.passages, found.retrieve)) if found.items else []

    @dispatcher.span
    async def _apostprocess_nodes(self, nodes: Nodes, query_bundle: QueryBundle | None = None) -> Nodes:
        with self._events(nodes, query_bundle) as (query, found, done):
            return done(await self.arank(query, found.passages, found.retrieve)) if found.items else []

    @contextmanager
    def _events(self, nodes: Nodes, query: QueryBundle | None) -> Iterator[Query]:
        """Both kinds of events, also without nodes and after an error."""
        found = Sources(NodeWithScore, nodes, self._passage, self._retriever)
        top_n, model, end = self.top_n or len(found.items), self.ranker.plan.backend.model, ReRankEndEvent(nodes=[])
        text = query.query_str if isinstance(query, QueryBundle) else None
        payload: dict[Any, Any] = {EventPayload.NODES: found.items, EventPayload.QUERY_STR: text}
        payload |= {EventPayload.TOP_K: top_n, EventPayload.MODEL_NAME: model}

        def done(ranking: Ranking) -> Nodes:
            end.tags["rankr1"] = ranking
            for one, score, added in self._results(found, ranking):
                added |= {"retrieval_score": one.score} if self.keep_retrieval_score else {}
                new: dict[str, Any] = {name: [*getattr(one.node, name), *added] for name in HIDDEN}
                new |= {"metadata": one.node.metadata | added}
                end.nodes.append(NodeWithScore(node=one.node.model_copy(update=new), score=score))
            return end.nodes

        dispatcher.event(ReRankStartEvent(query=query, nodes=list(found.items), top_n=top_n, model_name=model))
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
                if text is None:
                    raise ValueError("RankR1Rerank needs a query: use query_str= or query_bundle=")
                yield text, found, done
                event.on_end(payload={EventPayload.NODES: end.nodes})
        finally:
            dispatcher.event(end)

    def _passage(self, scored: NodeWithScore) -> Passage:
        node, own = scored.node, {self.title_key, *(self.metadata_keys or ())}
        rest = {key: value for key, value in node.metadata.items() if key not in own}
        text = node.model_copy(update={"metadata": rest}).get_content(self.metadata_mode)
        return self._to_passage(node.node_id, text, node.metadata)
