"""Documents to passages and a ranking to documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from langchain_core.callbacks import Callbacks, adispatch_custom_event, dispatch_custom_event
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_rankr1.llm import LangChainLLM
from langchain_rankr1.step import RerankStep, Retrieved
from pydantic import InstanceOf
from pydantic.json_schema import SkipJsonSchema

from rankr1_rag.concurrency.event_loop import contained
from rankr1_rag.frameworks.component import Component, Sources, deep_copies
from rankr1_rag.frameworks.fields import CHOSEN, live
from rankr1_rag.types import Passage, Ranking


class RankR1Rerank(Component, BaseDocumentCompressor):  # type: ignore[misc]
    """Reranks documents with a model that reasons about them.

        RankR1Rerank(llm=model)                                           any chat model of LangChain
        RankR1Rerank(model="ielabgroup/Rank-R1-7B-v0.1", base_url="…")    a server
        RankR1Rerank()                                                    the embedded model, on this machine's CPU
        RankR1Rerank(reranker=Reranker(…))                                a reranker of your own

    Returns copies, ids and metadata kept, with `metadata["relevance_score"]` strictly decreasing in (0, 1]; changes no
    input. It is a run of its own in traces, with the model's calls below it. The whole `Ranking` goes to `on_ranking`
    and to the handlers of the custom event "rankr1". Raises BackendError, UnparsedError, and whatever `retrieve`
    raises; the documents that it finds are returned like the others.
    """

    _wrap_llm: ClassVar[Any] = LangChainLLM
    _retrievers: ClassVar[Any] = (Runnable, "invoke", "ainvoke", None)

    llm: SkipJsonSchema[InstanceOf[Runnable[Any, Any]] | None] = live("Chat model of LangChain, wrapped or not")

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The `top_n` best documents for the query."""
        return self.as_runnable().invoke({"query": query, "documents": documents}, {"callbacks": callbacks})

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """`compress_documents`, from any event loop."""
        return await self.as_runnable().ainvoke({"query": query, "documents": documents}, {"callbacks": callbacks})

    def as_runnable(self) -> RerankStep:
        """For LCEL: `{"query": …, "documents": …}` in, documents out; with `configurable_fields(top_n=…)`."""
        return RerankStep(compressor=self, name=type(self).__name__)

    def _compress(self, retrieved: Retrieved, config: RunnableConfig) -> list[Document]:
        query, found = self._read(retrieved)
        if not found.items:
            return []
        ranking = self.rank(query, found.scored, found.retrieve)
        dispatch_custom_event("rankr1", ranking, config=config)
        return self._chosen(found, ranking)

    async def _acompress(self, retrieved: Retrieved, config: RunnableConfig) -> list[Document]:
        with contained():
            query, found = self._read(retrieved)
            if not found.items:
                return []
            ranking = await self.arank(query, found.scored, found.retrieve)
            await adispatch_custom_event("rankr1", ranking, config=config)
            return self._chosen(found, ranking)

    def _read(self, retrieved: Retrieved) -> tuple[str, Sources[Document]]:
        if not isinstance(retrieved, dict) or not {"query", "documents"} <= retrieved.keys():
            keys = sorted(retrieved) if isinstance(retrieved, dict) else type(retrieved).__name__
            raise ValueError(f'{{"query": …, "documents": …}} is needed, not {keys}')
        found = Sources(Document, retrieved["documents"], self._passage, self._retriever, self.ranker.distances)
        return retrieved["query"], found

    def _passage(self, document: Document) -> Passage:
        return self._to_passage(document.id or "", document.page_content, document.metadata)

    def _chosen(self, found: Sources[Document], ranking: Ranking) -> list[Document]:
        chosen = []
        for document, score, added in self._results(found, ranking):
            metadata = {key: one for key, one in deep_copies(document.metadata).items() if key != CHOSEN}
            if self.keep_retrieval_score and "relevance_score" in metadata:
                metadata["retrieval_score"] = metadata["relevance_score"]
            chosen.append(document.model_copy(update={"metadata": metadata | {"relevance_score": score, **added}}))
        return chosen
