"""Nodes to passages, a ranking to nodes, and the events around it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.llms import LLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from llama_index.postprocessor.rankr1.llm import LlamaIndexLLM
from pydantic import Field, InstanceOf

from rankr1_rag.frameworks.component import Component, RetrieverKind, Sources
from rankr1_rag.frameworks.fields import live
from rankr1_rag.frameworks.llm import FrameworkLLM
from rankr1_rag.types import Passage, Ranking

dispatcher = get_dispatcher(__name__)
Nodes = list[NodeWithScore]
Query = tuple[str, Sources[NodeWithScore], Callable[[Ranking], Nodes]]


class RankR1Rerank(Component, BaseNodePostprocessor):  # type: ignore[misc]
    """Reranks nodes with a model that reasons about them.

        RankR1Rerank(llm=Settings.llm)                                    the model of the pipeline
        RankR1Rerank(model="ielabgroup/Rank-R1-7B-v0.1", base_url="…")    a server
        RankR1Rerank()                                                    the embedded model, on this machine's CPU
        RankR1Rerank(reranker=Reranker(…))                                a reranker of your own

    Returns new `NodeWithScore` objects, scores strictly decreasing in (0, 1], and changes no input. Metadata is added
    on a copy of the node, hidden from the embedding model and the LLM. The whole `Ranking` goes to `on_ranking` and
    into `ReRankEndEvent.tags["rankr1"]`. Raises ValueError without a query, BackendError, UnparsedError, and whatever
    `retrieve` raises; the nodes that it finds are returned unchanged.
    """

    _unpickled: ClassVar[frozenset[str]] = frozenset({"callback_manager"})
    _retrievers: ClassVar[RetrieverKind] = RetrieverKind(BaseRetriever, "retrieve", "aretrieve", own="_aretrieve")

    llm: InstanceOf[LLM] | None = live("LLM of LlamaIndex, Settings.llm for example")
    metadata_mode: MetadataMode = Field(
        default=MetadataMode.EMBED, description="Which metadata the model sees with the text (default: EMBED)."
    )
    keep_retrieval_score: bool = Field(
        default=False,
        strict=True,
        description="Keep the retrieval score in metadata['retrieval_score'] (default: off).",
    )

    @classmethod
    def class_name(cls) -> str:
        """The name under which it is serialised."""
        return "RankR1Rerank"

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401
        """The options, without any secret. TypeError for a live object."""
        self._check_no_live()
        return super().to_dict(**kwargs)

    def _wrap_llm(self, llm: LLM) -> FrameworkLLM:
        return LlamaIndexLLM(llm)

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
        found = self._sources(NodeWithScore, nodes, self._passage)
        top_n, model, end = self.top_n or len(found.items), self.ranker.plan.backend.model, ReRankEndEvent(nodes=[])
        text = query.query_str if isinstance(query, QueryBundle) else None
        payload: dict[str, Any] = {EventPayload.NODES: found.items, EventPayload.QUERY_STR: text}
        payload |= {EventPayload.TOP_K: top_n, EventPayload.MODEL_NAME: model}

        def done(ranking: Ranking) -> Nodes:
            end.tags["rankr1"] = ranking
            end.nodes = list(self._chosen(found.behind(ranking), ranking))
            return end.nodes

        dispatcher.event(ReRankStartEvent(query=query, nodes=found.items, top_n=top_n, model_name=model))
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
                if text is None:
                    raise ValueError("RankR1Rerank needs a query: use query_str= or query_bundle=")
                yield text, found, done
                event.on_end(payload={EventPayload.NODES: end.nodes})
        finally:
            dispatcher.event(end)

    def _passage(self, scored: NodeWithScore) -> Passage:
        title = self._title(scored.node.metadata)
        shown = _extended(scored.node, {}, [self.title_key] if title else [])  # the title once, before the text
        return Passage(scored.node.node_id, shown.get_content(metadata_mode=self.metadata_mode), title)

    def _chosen(self, nodes: list[NodeWithScore], ranking: Ranking) -> Iterator[NodeWithScore]:
        for position, score, added in self._results(ranking):
            added |= {"retrieval_score": nodes[position].score} if self.keep_retrieval_score else {}
            yield NodeWithScore(node=_extended(nodes[position].node, added, added), score=score)


def _extended(node: BaseNode, added: dict[str, Any], hidden: Collection[str | None]) -> BaseNode:
    """The node, or a copy with more metadata and with keys that neither embedder nor LLM sees."""
    names = ("excluded_embed_metadata_keys", "excluded_llm_metadata_keys")
    update: dict[str, Any] = {name: [*getattr(node, name), *hidden] for name in names}
    return node.model_copy(update=update | {"metadata": {**node.metadata, **added}}) if hidden else node
