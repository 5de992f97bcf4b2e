"""Parts of LangChain: a chat model over a scripted backend, an embedder, a first stage, handlers that record."""

import asyncio
import re
import warnings
from collections.abc import Sequence
from typing import Any

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.retrievers import BaseRetriever
from langchain_core.tracers import BaseTracer, Run
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import Field

from rankr1_rag.backends import Request
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.types import Completion
from tests.integrations.conftest import PASSAGES, Calls, Vectors, call

with warnings.catch_warnings():
    # The package warns at its import that it ends; BM25Retriever is in no other package yet.
    warnings.filterwarnings(
        "ignore", "`langchain-community` is being sunset", DeprecationWarning, module=re.escape(__name__)
    )
    from langchain_community.document_transformers import EmbeddingsRedundantFilter
    from langchain_community.retrievers import BM25Retriever

__all__ = ["EmbeddingsRedundantFilter"]


def documents() -> list[Document]:
    """The passages of the tests, with ids and titles, in an order in which the wanted ones do not come first."""
    return [Document(id=key, page_content=text, metadata={"title": title}) for key, (title, text) in PASSAGES.items()]


def ids(found: Sequence[Document]) -> list[str | None]:
    return [document.id for document in found]


class Chat(BaseChatModel):
    """A chat model over a scripted backend; `only` one of its methods may exist."""

    backend: Scripted
    only: str = "native"
    max_tokens: int | None = None
    temperature: float | None = 0.7
    calls: list[Any] = Field(default_factory=Calls, exclude=True)

    @property
    def model(self) -> str:
        return self.backend.model

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        self.calls.append(call("sync", self))
        return _result(asyncio.run(self.backend.complete(_request(messages))))

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        self.calls.append(call("async", self))
        return _result(await self.backend.complete(_request(messages)))


def _request(messages: list[BaseMessage]) -> Request:
    roles = {"human": "user", "ai": "assistant", "system": "system"}
    return Request([{"role": roles[message.type], "content": message.content} for message in messages], 1_000)


def _result(said: Completion) -> ChatResult:
    counts = {"input_tokens": said.prompt_tokens, "output_tokens": said.completion_tokens}
    usage = UsageMetadata(**counts, total_tokens=sum(counts.values()))
    message = AIMessage(said.text, usage_metadata=usage, response_metadata={"finish_reason": said.finish_reason})
    return ChatResult(generations=[ChatGeneration(message=message)])


class Hashed(Embeddings):
    """The embedder of the tests as one of LangChain's."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return Vectors()(texts)

    def embed_query(self, text: str) -> list[float]:
        return Vectors()([text])[0]


def vectors(k: int = 6) -> BaseRetriever:
    """A real retriever by vectors over the passages."""
    store = InMemoryVectorStore(Hashed())
    store.add_documents(documents())
    return store.as_retriever(search_kwargs={"k": k})


def bm25(over: Sequence[Document] = ()) -> BM25Retriever:
    """A real lexical retriever that finds all of these documents, or of the passages."""
    return BM25Retriever.from_documents(over or documents(), k=12)


def around(compressor: object, first_stage: object = None) -> ContextualCompressionRetriever:
    """The retriever that people put around a compressor."""
    return ContextualCompressionRetriever(base_compressor=compressor, base_retriever=first_stage or bm25())


class Events(BaseCallbackHandler):
    """A handler that records the custom events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        self.events.append((name, data))


class AsyncEvents(AsyncCallbackHandler):
    """The async handler: it records only if it is awaited."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.loops: list[asyncio.AbstractEventLoop] = []

    async def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        await asyncio.sleep(0)
        self.loops.append(asyncio.get_running_loop())
        self.events.append((name, data))


class Traces(BaseTracer):
    """A tracer that records the root runs; tracing products send them off."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.runs.append(run)
