"""What the tests of the LangChain integration share: a first stage, and the two ways to bring a model."""

from collections.abc import Callable

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_rankr1 import RankR1Rerank

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.with_langchain.parts import BM25Retriever, Chat, documents

Around = Callable[..., ContextualCompressionRetriever]


@pytest.fixture(params=["reranker", "llm"])
def compressor(request: pytest.FixtureRequest, judge: Scripted) -> RankR1Rerank:
    """A compressor that knows best, around a reranker and around a chat model."""
    if request.param == "llm":
        return RankR1Rerank(llm=Chat(backend=judge), top_n=3)
    return RankR1Rerank(reranker=Reranker(judge), top_n=3)


@pytest.fixture
def first_stage() -> BM25Retriever:
    """A real lexical retriever that finds everything."""
    return BM25Retriever.from_documents(documents(), k=6)


@pytest.fixture
def around(first_stage: BM25Retriever) -> Around:
    """The retriever that people put around a compressor."""

    def make(compressor: object) -> ContextualCompressionRetriever:
        return ContextualCompressionRetriever(base_compressor=compressor, base_retriever=first_stage)

    return make
