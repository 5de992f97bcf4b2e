"""The compressor of the tests, with each of the two ways to bring a model."""

import pytest
from langchain_rankr1 import RankR1Rerank

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.with_langchain.parts import Chat


@pytest.fixture(params=["reranker", "llm"])
def compressor(request: pytest.FixtureRequest, judge: Scripted) -> RankR1Rerank:
    """A compressor that knows best, around a reranker and around a chat model."""
    if request.param == "llm":
        return RankR1Rerank(llm=Chat(backend=judge), top_n=3)
    return RankR1Rerank(reranker=Reranker(judge), top_n=3)
