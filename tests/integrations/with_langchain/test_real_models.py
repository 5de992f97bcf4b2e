"""ChatOpenAI on a real server, through a compression retriever and without one."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain_openai import ChatOpenAI
from langchain_rankr1 import RankR1Rerank
from langchain_rankr1.llm import LangChainLLM

from rankr1_rag import Ranking
from rankr1_rag.backends import Request
from tests.integrations.conftest import PASSAGES, QUERY
from tests.integrations.with_langchain.parts import Traces, documents, ids

pytestmark = pytest.mark.slow
SHORT: dict[str, Any] = {"format": "rank-r1-v0.1", "reasoning_tokens": 8, "force": "unparsed", "size": 6, "top_n": 2}


def reader(url: str, **settings: Any) -> ChatOpenAI:
    """A real client; its connections may be closed, unlike those of the shared one."""
    return ChatOpenAI(model="smollm2", base_url=url, api_key="none", max_retries=0, **settings)


@pytest.fixture
def chat(llama: str) -> Iterator[ChatOpenAI]:
    """ChatOpenAI that keeps no connections, as they work on one loop only."""
    none_kept = httpx.Limits(max_keepalive_connections=0)
    loops_own = httpx.AsyncClient(limits=none_kept)
    with httpx.Client(limits=none_kept) as client:
        yield reader(llama, http_client=client, http_async_client=loops_own)


def check(found: list[Any], rankings: list[Ranking]) -> None:
    """The parts of a result that no small model can spoil: real documents, once each, best first, with their cost."""
    assert len(found) == len(set(ids(found))) == 2
    assert set(ids(found)) <= PASSAGES.keys()
    assert found[0].metadata["relevance_score"] > found[1].metadata["relevance_score"]
    cost = rankings[-1].cost
    assert cost.comparisons > 0
    assert cost.prompt_tokens > 100 * cost.comparisons
    assert 0 < cost.completion_tokens <= 100 * cost.comparisons


def test_chat_openai_serves_a_sync_and_then_an_async_caller(llama: str, around: Any) -> None:
    rankings: list[Ranking] = []
    traces = Traces()
    config = {"callbacks": [traces]}
    client, loops_own = httpx.Client(), httpx.AsyncClient()
    chat = reader(llama, http_client=client, http_async_client=loops_own)
    retriever = around(RankR1Rerank(llm=chat, on_ranking=rankings.append, **SHORT))

    async def ask() -> None:
        async with loops_own:
            for found in await asyncio.gather(*(retriever.ainvoke(QUERY, config) for _ in range(2))):
                check(found, rankings)
            check(await retriever.ainvoke(QUERY, config), rankings)
            check(retriever.invoke(QUERY, config), rankings)

    with client:
        check(retriever.invoke(QUERY, config), rankings)
        asyncio.run(ask())
        check(retriever.invoke(QUERY, config), rankings)
    names = {run.name for each in traces.runs for run in each.child_runs[1].child_runs}
    assert names == {"ChatOpenAI"}


def test_a_limit_reaches_chat_openai_and_its_finish_reason_returns(chat: ChatOpenAI) -> None:
    request = Request([{"role": "user", "content": "Tell me a long story about a river."}], max_tokens=5)
    for completion in (LangChainLLM(chat).chat(request), asyncio.run(LangChainLLM(chat).achat(request))):
        assert (completion.completion_tokens, completion.finish_reason) == (5, "length")


@pytest.mark.parametrize(
    "around_it",
    [lambda m: m, lambda m: m.with_retry(), lambda m: m.bind(max_tokens=24)],
    ids=["plain", "retry", "bind"],
)
def test_chat_openai_may_be_wrapped_and_serves_one_loop_after_another(around_it: Any, chat: ChatOpenAI) -> None:
    rankings: list[Ranking] = []
    limited = chat.model_copy(update={"max_tokens": 24})
    compressor = RankR1Rerank(llm=around_it(limited), on_ranking=rankings.append, **SHORT)
    check(list(compressor.compress_documents(documents(), QUERY)), rankings)
    for _ in range(2):
        check(list(asyncio.run(compressor.acompress_documents(documents(), QUERY))), rankings)
