"""ChatOpenAI on a real server, through a compression retriever and without one."""

import asyncio
from typing import Any

import httpx
import pytest
from langchain_openai import ChatOpenAI
from langchain_rankr1 import RankR1Rerank
from langchain_rankr1.llm import LangChainLLM

from rankr1_rag import Ranking
from rankr1_rag.backends import Request
from tests.integrations.conftest import QUERY
from tests.integrations.with_langchain.parts import Traces, around, bm25, documents

pytestmark = pytest.mark.slow
SHORT: dict[str, Any] = {"format": "rank-r1-v0.1", "reasoning_tokens": 8, "force": "unparsed", "size": 2, "top_n": 1}
FEW = documents()[:2]


def reader(url: str, **settings: Any) -> ChatOpenAI:
    """A real client; its connections may be closed, unlike those of the shared one."""
    return ChatOpenAI(model="smollm2", base_url=url, api_key="none", max_retries=0, **settings)


def check(found: Any, ranking: Ranking) -> None:
    """The parts of a result that no small model can spoil: a real document and the cost."""
    (document,) = found
    assert (document.id, document.metadata["relevance_score"]) == (ranking.passages[0].id, 1.0)
    cost = ranking.cost
    assert cost.prompt_tokens > 100 * cost.comparisons > 0
    assert 0 < cost.completion_tokens <= 100 * cost.comparisons


def test_chat_openai_serves_a_sync_and_then_an_async_caller(llama: str) -> None:
    rankings: list[Ranking] = []
    traces = Traces()
    config = {"callbacks": [traces]}
    client, loops_own = httpx.Client(), httpx.AsyncClient()
    chat = reader(llama, http_client=client, http_async_client=loops_own)
    retriever = around(RankR1Rerank(llm=chat, on_ranking=rankings.append, **SHORT), bm25(FEW))

    async def ask() -> list[Any]:
        async with loops_own:
            twice = await asyncio.gather(*(retriever.ainvoke(QUERY, config) for _ in range(2)))
            return [*twice, retriever.invoke(QUERY, config)]

    with client:
        results = [retriever.invoke(QUERY, config), *asyncio.run(ask()), retriever.invoke(QUERY, config)]
    # Each call draws its own answers, and of two at once either may end first: the results are matched by their first.
    results.sort(key=lambda found: found[0].id)
    rankings.sort(key=lambda ranking: ranking.passages[0].id)
    for found, ranking in zip(results, rankings, strict=True):
        check(found, ranking)
    assert {run.name for each in traces.runs for run in each.child_runs[1].child_runs} == {"RankR1Rerank comparison"}


def test_chat_openai_has_its_limit_may_be_wrapped_and_serves_one_loop_after_another(llama: str) -> None:
    none_kept = httpx.Limits(max_keepalive_connections=0)  # as connections work on one loop only
    loops_own = httpx.AsyncClient(limits=none_kept)
    rankings: list[Ranking] = []
    with httpx.Client(limits=none_kept) as client:
        chat = reader(llama, http_client=client, http_async_client=loops_own)
        limited = chat.model_copy(update={"max_tokens": 24})
        for llm in (limited, limited.with_retry(), chat.bind(max_tokens=24)):
            compressor = RankR1Rerank(llm=llm, on_ranking=rankings.append, **SHORT)
            check(asyncio.run(compressor.acompress_documents(FEW, QUERY)), rankings[-1])
        check(compressor.compress_documents(FEW, QUERY), rankings[-1])
        story = Request([{"role": "user", "content": "Tell me a long story about a river."}], max_tokens=5)
        for completion in (LangChainLLM(chat).chat(story), asyncio.run(LangChainLLM(chat).achat(story))):
            assert (completion.completion_tokens, completion.finish_reason) == (5, "length")
