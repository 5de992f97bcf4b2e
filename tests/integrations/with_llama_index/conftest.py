"""Parts of LlamaIndex: nodes, retrievers, a vector index, language models. All real but the answers of the models."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.llms import LLM, ChatMessage, ChatResponse, CompletionResponse, CustomLLM
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.retrievers.bm25 import BM25Retriever
from pydantic import Field, PrivateAttr

from rankr1_rag import Completion
from rankr1_rag.backends import Request
from tests.integrations.conftest import PASSAGES, Calls, Vectors, call


class Spoken(CustomLLM):
    """A model in this process that answers with a function of the prompt; it has the sync method only."""

    _answer: Callable[[str], str] = PrivateAttr()

    def __init__(self, answer: Callable[[str], str]) -> None:
        super().__init__()
        self._answer = answer

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="spoken", context_window=8_192)

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        return CompletionResponse(text=self._answer(prompt))

    def stream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> Iterator[CompletionResponse]:
        yield CompletionResponse(text=self._answer(prompt), delta=self._answer(prompt))


class Served(LLM):
    """A model on a server, over a scripted backend; `only` one of its methods may exist."""

    backend: Any
    only: str = "native"
    max_tokens: int | None = None
    temperature: float | None = 0.7
    calls: list[Any] = Field(default_factory=Calls, exclude=True)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.backend.model, context_window=8_192, is_chat_model=True)

    def chat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        self.calls.append(call("sync", self))
        return _response(asyncio.run(self.backend.complete(_request(messages))))

    async def achat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        self.calls.append(call("async", self))
        return _response(await self.backend.complete(_request(messages)))

    def unavailable(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    complete = acomplete = stream_chat = astream_chat = stream_complete = astream_complete = unavailable


def _request(messages: Sequence[ChatMessage]) -> Request:
    return Request([{"role": message.role.value, "content": message.content or ""} for message in messages], 1_000)


def _response(said: Completion) -> ChatResponse:
    usage = {"prompt_tokens": said.prompt_tokens, "completion_tokens": said.completion_tokens}
    raw = {"choices": [{"finish_reason": said.finish_reason}], "usage": usage}
    return ChatResponse(message=ChatMessage(role="assistant", content=said.text), raw=raw)


class Embedder(BaseEmbedding):
    """The hashed n-grams as a LlamaIndex embedding model."""

    _vectors: Vectors = PrivateAttr(default_factory=Vectors)

    @property
    def seen(self) -> list[str]:
        return self._vectors.seen

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vectors([text])[0]

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


class Events(BaseEventHandler):
    """All events, as a tracing product receives them."""

    seen: list[Any] = Field(default_factory=list)

    def handle(self, event: BaseEvent, **_: Any) -> None:
        self.seen.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.seen if isinstance(event, kind)]


@pytest.fixture
def events() -> Iterator[Events]:
    root, handler = get_dispatcher(), Events()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


@pytest.fixture
def nodes() -> list[TextNode]:
    """The passages, with metadata of the user's own."""
    return [
        TextNode(id_=name, text=text, metadata={"title": title, "source": {"file": f"{name}.txt", "page": 1}})
        for name, (title, text) in PASSAGES.items()
    ]


@pytest.fixture
def found(nodes: list[TextNode]) -> list[NodeWithScore]:
    """The result of a retriever: best first, with scores, one of them without."""
    scores = [0.9, 0.8, None, 0.6, 0.5, 0.4]
    return [NodeWithScore(node=node, score=score) for node, score in zip(nodes, scores, strict=True)]


@pytest.fixture
def bm25(nodes: list[TextNode]) -> BM25Retriever:
    """BM25 over the passages, all of them."""
    return BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=len(nodes))


@pytest.fixture
def embedder() -> Embedder:
    return Embedder()


@pytest.fixture
def index(nodes: list[TextNode], embedder: Embedder) -> VectorStoreIndex:
    """An in-memory vector index."""
    return VectorStoreIndex(nodes, embed_model=embedder)


def ids(nodes: Sequence[NodeWithScore]) -> list[str]:
    """The ids of nodes."""
    return [node.node_id for node in nodes]
