"""A compressor as a step of a chain: reranks, emits the ranking as an event, and returns documents.

Annotations are not postponed here: LangChain reads the types of a chain from them.
"""

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import Field, InstanceOf
from typing_extensions import TypedDict  # LangChain makes a schema of it, for which typing's is too little before 3.12

from rankr1_rag.frameworks.component import Sources


class Retrieved(TypedDict):
    """The input of a step: a query and the documents found for it, best first."""

    query: str
    documents: Sequence[Document]


class RerankStep(RunnableSerializable[Retrieved, list[Document]]):
    """`{"query": …, "documents": …}` in, documents out. `top_n` can be configured for each run."""

    compressor: InstanceOf[BaseDocumentCompressor]
    top_n: int | None = Field(
        default=None, ge=1, strict=True, description="Number of documents to return (default: the compressor's)."
    )

    def invoke(self, input: Retrieved, config: RunnableConfig | None = None, **_: Any) -> list[Document]:  # noqa: ANN401
        """Rerank, as a run of its own."""
        return self._call_with_config(self._compress, input, config)

    async def ainvoke(self, input: Retrieved, config: RunnableConfig | None = None, **_: Any) -> list[Document]:  # noqa: ANN401
        """`invoke`, from any event loop."""
        return await self._acall_with_config(self._acompress, input, config)

    def _compress(self, retrieved: Retrieved, config: RunnableConfig) -> list[Document]:
        one, query, found = self._read(retrieved)
        if not found.items:
            return []
        ranking = one.rank(query, found.passages, found.retrieve)
        dispatch_custom_event("rankr1", ranking, config=config)
        return one.documents(found, ranking)

    async def _acompress(self, retrieved: Retrieved, config: RunnableConfig) -> list[Document]:
        one, query, found = self._read(retrieved)
        if not found.items:
            return []
        ranking = await one.arank(query, found.passages, found.retrieve)
        await adispatch_custom_event("rankr1", ranking, config=config)
        return one.documents(found, ranking)

    def _read(self, retrieved: Retrieved) -> tuple[Any, str, Sources[Document]]:
        if not isinstance(retrieved, dict) or not {"query", "documents"} <= retrieved.keys():
            found = sorted(retrieved) if isinstance(retrieved, dict) else type(retrieved).__name__
            raise ValueError(f'{{"query": …, "documents": …}} is needed, not {found}')
        one = self.compressor.model_copy(update={} if self.top_n is None else {"top_n": self.top_n})
        return one, retrieved["query"], one.sources(retrieved["documents"])
