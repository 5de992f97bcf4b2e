"""LlamaIndex as a user has it: nodes, retrievers, a vector index, language models. All real but what models say."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.llms import LLM, ChatMessage, ChatResponse, CompletionResponse, CustomLLM
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.retrievers.bm25 import BM25Retriever
from pydantic import PrivateAttr

from tests.integrations.conftest import PASSAGES, Vectors


class Spoken(CustomLLM):
    """A model in this process that says what a function of the prompt says; it has the sync method only."""

    _say: Callable[[str], str] = PrivateAttr()

    def __init__(self, say: Callable[[str], str]) -> None:
        super().__init__()
        self._say = say

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="spoken", context_window=8_192)

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        return CompletionResponse(text=self._say(prompt))

    def stream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> Iterator[CompletionResponse]:
        text = self._say(prompt)
        yield CompletionResponse(text=text, delta=text)


class Served(LLM):
    """A model elsewhere: native sync and async methods, limits as fields, a whole `ChatResponse` from a function."""

    max_tokens: int | None = None
    temperature: float | None = 0.7
    _answer: Callable[[Sequence[ChatMessage], "Served", bool], Any] = PrivateAttr()

    def __init__(self, answer: Callable[[Sequence[ChatMessage], "Served", bool], Any], **fields: Any) -> None:
        super().__init__(**fields)
        self._answer = answer

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="served", context_window=8_192, is_chat_model=True)

    def chat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        return _response(self._answer(messages, self, False))

    async def achat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        answer = self._answer(messages, self, True)
        return _response(await answer if hasattr(answer, "__await__") else answer)

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        raise NotImplementedError

    async def acomplete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        raise NotImplementedError

    def stream_chat(self, messages: Sequence[ChatMessage], **_: Any) -> Iterator[ChatResponse]:
        raise NotImplementedError

    async def astream_chat(self, messages: Sequence[ChatMessage], **_: Any) -> AsyncIterator[ChatResponse]:
        raise NotImplementedError

    def stream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> Iterator[CompletionResponse]:
        raise NotImplementedError

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **_: Any
    ) -> AsyncIterator[CompletionResponse]:
        raise NotImplementedError


def _response(said: str | ChatResponse) -> ChatResponse:
    return said if isinstance(said, ChatResponse) else ChatResponse(message=ChatMessage(role="assistant", content=said))


class Embedder(BaseEmbedding):
    """The hashed n-grams as a LlamaIndex embedding model."""

    _vectors: Vectors = PrivateAttr(default_factory=Vectors)

    @property
    def seen(self) -> list[str]:
        return self._vectors.seen

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vectors([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vectors([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._vectors([query])[0]


@pytest.fixture
def nodes() -> list[TextNode]:
    """The passages, with metadata of the user's own."""
    return [
        TextNode(id_=name, text=text, metadata={"title": title, "source": {"file": f"{name}.txt", "page": 1}})
        for name, (title, text) in PASSAGES.items()
    ]


@pytest.fixture
def found(nodes: list[TextNode]) -> list[NodeWithScore]:
    """As a retriever gives them: best first, with scores, one of them without."""
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
