"""Nodes to passages and a ranking to nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, NoReturn

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.llms import LLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryType
from llama_index.postprocessor.rankr1.events import Nodes, Reranking, dispatcher, reranking
from llama_index.postprocessor.rankr1.llm import LlamaIndexLLM
from pydantic import Field, InstanceOf

from rankr1_rag.concurrency.event_loop import contained
from rankr1_rag.frameworks.component import Component, Sources
from rankr1_rag.frameworks.fields import CHOSEN, live
from rankr1_rag.types import Passage, Ranking

HIDDEN = ("excluded_embed_metadata_keys", "excluded_llm_metadata_keys")


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

    def __call__(self, *_: object, **__: object) -> NoReturn:
        """TypeError: no transformation of an `IngestionPipeline`, which has no query."""
        raise TypeError(
            "RankR1Rerank reranks for a query, which an IngestionPipeline does not have: use it in an engine's "
            "node_postprocessors=, or call postprocess_nodes(nodes, query_str=…)"
        )

    acall = __call__

    @dispatcher.span
    def _postprocess_nodes(self, nodes: Nodes, query_bundle: QueryType | None = None) -> Nodes:
        found = self._sources(nodes)
        with self._events(query_bundle, found) as (query, result, tags):
            if found.items:
                tags["rankr1"] = self.rank(query, found.scored, found.retrieve)
                result.extend(self._chosen(found, tags["rankr1"]))
        return result

    @dispatcher.span
    async def _apostprocess_nodes(self, nodes: Nodes, query_bundle: QueryType | None = None) -> Nodes:
        with contained():
            found = self._sources(nodes)
            with self._events(query_bundle, found) as (query, result, tags):
                if found.items:
                    tags["rankr1"] = await self.arank(query, found.scored, found.retrieve)
                    result.extend(self._chosen(found, tags["rankr1"]))
            return result

    def _sources(self, nodes: Nodes) -> Sources[NodeWithScore]:
        return Sources(NodeWithScore, nodes, self._passage, self._retriever, self.ranker.distances)

    def _events(self, query: QueryType | None, found: Sources[NodeWithScore]) -> Reranking:
        model = self.ranker.plan.backend.model
        return reranking(self.callback_manager, query, list(found.items), self.top_n, model)

    def _passage(self, scored: NodeWithScore) -> Passage:
        node, own = scored.node, {self.title_key, *(self.metadata_keys or ())}
        rest = {key: value for key, value in node.metadata.items() if key not in own}
        text = node.model_copy(update={"metadata": rest}).get_content(self.metadata_mode)
        return self._to_passage(node.node_id, text, node.metadata)

    def _chosen(self, found: Sources[NodeWithScore], ranking: Ranking) -> Iterator[NodeWithScore]:
        for one, score, added in self._results(found, ranking):
            added |= {"retrieval_score": one.score} if self.keep_retrieval_score else {}
            new: dict[str, Any] = {name: [*getattr(one.node, name), *added] for name in HIDDEN}
            new["metadata"] = {key: value for key, value in one.node.metadata.items() if key != CHOSEN} | added
            yield NodeWithScore(node=one.node.model_copy(update=new), score=score)
