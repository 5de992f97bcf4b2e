"""`llm=`: LLMs of LlamaIndex: in this process, without a name, with thinking blocks, and over a real server."""

import asyncio
import pickle
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from typing import Any

import httpx
import pytest
from llama_index.core import Settings
from llama_index.core.llms import ChatMessage, ChatResponse, LLMMetadata, MockLLM
from llama_index.core.schema import NodeWithScore
from llama_index.llms.openai_like import OpenAILike
from llama_index.postprocessor.rankr1 import RankR1Rerank

from rankr1_rag import Ranking
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.conftest import QUERY, WANTED, knows_best
from tests.integrations.with_llama_index.conftest import Served, Spoken, ids

Found = list[NodeWithScore]


CHAT = {"is_chat_model": True} if "is_chat_model" in signature(MockLLM.__init__).parameters else {}  # newer versions


@pytest.mark.parametrize("llm", [MockLLM(), MockLLM(**CHAT), MockLLM(max_tokens=9)])
def test_a_model_that_repeats_the_prompt_gives_no_answer(found: Found, llm: MockLLM) -> None:
    rankings: list[Ranking] = []
    rerank = RankR1Rerank(llm=llm, top_n=3, on_ranking=rankings.append)
    assert ids(rerank.postprocess_nodes(found, query_str=QUERY)) == ids(found[:3])
    assert rankings[0].cost.unparsed == rankings[0].cost.comparisons > 0


def test_a_model_in_this_process_has_one_call_at_a_time_and_blocks_no_loop(
    found: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, running, overlaps, threads = threading.Lock(), threading.Event(), list[bool](), set[str]()

    def watched(prompt: str) -> str:
        running.set()
        threads.add(threading.current_thread().name)
        overlaps.append(not busy.acquire(blocking=False))
        time.sleep(0.002)
        if not overlaps[-1]:
            busy.release()
        return knows_best([{"content": prompt}])

    monkeypatch.setattr(Settings, "_llm", Spoken(watched))
    rerank = RankR1Rerank(llm=Settings.llm, size=3, top_n=3)
    assert (rerank.ranker.plan.backend.model, rerank.ranker.plan.backend.context) == ("spoken", 8_192)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: rerank.postprocess_nodes(found, query_str=QUERY), range(4)))

    async def notebook() -> None:
        running.clear()
        tasks = [asyncio.create_task(rerank.apostprocess_nodes(found, query_str=QUERY)) for _ in range(3)]
        while not running.is_set():
            await asyncio.sleep(0.001)
        results.extend([rerank.postprocess_nodes(found, query_str=QUERY), *await asyncio.gather(*tasks)])

    asyncio.run(notebook())
    assert [ids(chosen) for chosen in results] == [WANTED] * 8
    assert not any(overlaps)
    assert threads == {"rankr1-call"}


def test_a_model_without_a_name_goes_by_its_class() -> None:
    class Nameless(Served):
        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata()

    backend = RankR1Rerank(llm=Nameless(backend=Scripted(knows_best)), context=777).ranker.plan.backend
    assert (backend.model, backend.context) == (Nameless.class_name(), 777)


class Raw(Served):
    """A model that returns a whole `ChatResponse`."""

    backend: Any = Scripted(knows_best)
    reply: Any

    def chat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        return ChatResponse(**self.reply)


def test_a_thinking_block_is_the_reasoning(found: Found) -> None:
    types = pytest.importorskip("llama_index.core.base.llms.types")
    if not hasattr(types, "ThinkingBlock"):
        pytest.skip("this version of LlamaIndex has no thinking blocks")
    blocks = [types.ThinkingBlock(content="it names the year"), types.TextBlock(text="<answer>[2]</answer>")]
    llm = Raw(reply={"message": ChatMessage(role="assistant", blocks=blocks)})
    (chosen,) = RankR1Rerank(llm=llm, include_reasoning=True, top_n=1).postprocess_nodes(found, query_str=QUERY)
    assert chosen.node.metadata["rankr1_reasoning"] == "it names the year"


@pytest.mark.parametrize("raw", [None, {}, {"usage": None}, {"choices": []}, {"choices": [None]}])
def test_an_empty_answer_of_any_shape_is_counted_and_the_retriever_trusted(found: Found, raw: Any) -> None:
    llm = Raw(reply={"message": ChatMessage(role="assistant", blocks=[]), "raw": raw})
    rankings: list[Ranking] = []
    rerank = RankR1Rerank(llm=llm, on_ranking=rankings.append)
    assert ids(rerank.postprocess_nodes(found, query_str=QUERY)) == ids(found)[:5]
    assert rankings[0].cost.unparsed == rankings[0].cost.comparisons


@pytest.mark.slow
def test_sync_and_async_callers_and_a_pickle_share_a_real_server_with_the_pipeline(llama: str, found: Found) -> None:
    settings = {"api_base": llama, "api_key": "none", "is_chat_model": True, "context_window": 4_096}
    settings |= {"model": "smollm2", "max_retries": 0, "timeout": 600.0}
    client, async_client = httpx.Client(), httpx.AsyncClient()
    llm = OpenAILike(http_client=client, async_http_client=async_client, **settings)
    rankings: list[Ranking] = []
    brief: dict[str, Any] = {"reasoning_tokens": 8, "force": "unparsed", "size": 3, "top_n": 1}
    rerank = RankR1Rerank(llm=llm, on_ranking=rankings.append, **brief)
    hello = [ChatMessage(role="user", content="Say yes.")]

    async def notebook() -> None:
        async with async_client:
            assert len(rerank.postprocess_nodes(found[:3], query_str=QUERY)) == 1
            await llm.achat(hello, max_tokens=4)
            await asyncio.gather(*(rerank.apostprocess_nodes(found[:3], query_str=QUERY) for _ in range(2)))
            llm.chat(hello, max_tokens=4)
            assert len(rerank.postprocess_nodes(found[:3], query_str=QUERY)) == 1

    with client:
        asyncio.run(notebook())
    assert len(rankings) == 4
    for ranking in rankings:
        assert ranking.failure is None
        assert ranking.cost.prompt_tokens > 100 * ranking.cost.comparisons
        assert 0 < ranking.cost.completion_tokens <= (8 + 16 + 16) * ranking.cost.comparisons
    assert any(ranking.cost.forced for ranking in rankings)  # a near tie decides whether all of them need it
    plain = RankR1Rerank(llm=OpenAILike(**settings), **brief)
    again = pickle.loads(pickle.dumps(plain))
    assert again.ranker.plan.backend.identity == plain.ranker.plan.backend.identity
    (chosen,) = again.postprocess_nodes(found[:3], query_str=QUERY)
    assert chosen.node_id in ids(found[:3])  # which one is a near tie for this model, and a server's cache decides
