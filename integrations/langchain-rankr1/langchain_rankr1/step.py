"""A compressor as a step of a chain.

Annotations are not postponed here: LangChain reads the types of a chain from them.
"""

from collections.abc import Sequence
from typing import Any

from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import Field, InstanceOf
from typing_extensions import TypedDict  # LangChain makes a schema of it, for which typing's is too little before 3.12


class Retrieved(TypedDict):
    """The input: a query and the documents found for it, best first."""

    query: str
    documents: Sequence[Document]


class RerankStep(RunnableSerializable[Retrieved, list[Document]]):
    """Reranks as a run of its own. `configurable_fields(top_n=…)` lets each run choose its `top_n`."""

    compressor: InstanceOf[BaseDocumentCompressor]
    top_n: int | None = Field(
        default=None, ge=1, strict=True, description="Number of documents to return (default: the compressor's)."
    )

    def invoke(self, input: Retrieved, config: RunnableConfig | None = None, **_: Any) -> list[Document]:  # noqa: ANN401
        """The best documents for the query."""
        return self._call_with_config(self._of_this_run()._compress, input, config)

    async def ainvoke(self, input: Retrieved, config: RunnableConfig | None = None, **_: Any) -> list[Document]:  # noqa: ANN401
        """`invoke`, from any event loop."""
        return await self._acall_with_config(self._of_this_run()._acompress, input, config)

    def _of_this_run(self) -> Any:  # noqa: ANN401
        return self.compressor.model_copy(update={"top_n": self.top_n}) if self.top_n else self.compressor
