"""`llm=`: the model that the pipeline already has, whatever it is, used as its owner uses it."""

import asyncio
import pickle
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from llama_index.core import Settings
from llama_index.core.llms import ChatMessage, ChatResponse, LLMMetadata
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai_like import OpenAILike
from llama_index.postprocessor.rankr1 import RankR1Rerank

from rankr1_rag import BackendError, Ranking
from rankr1_rag.backends import Request
from tests.integrations.conftest import QUERY, WANTED, knows_best
from tests.integrations.with_llama_index.conftest import Served, Spoken, ids

Found = list[NodeWithScore]
BRIEF: Any = {"reasoning_tokens": 8, "force": "unparsed"}
"""How an untrained model is asked for an answer that can be read."""


def answer(messages: Sequence[ChatMessage], llm: Served, is_async: bool) -> str:
    return knows_best([{"content": message.content} for message in messages])


def say(prompt: str) -> str:
    return knows_best([{"content": prompt}])


@pytest.mark.parametrize("llm", [Spoken(say), Served(answer)], ids=["in this process", "elsewhere"])
def test_any_llm_of_the_pipeline_reranks(llm: Any, found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "_llm", llm)
    rerank = RankR1Rerank(llm=Settings.llm, top_n=3)
    assert rerank.ranker.plan.backend.model == llm.metadata.model_name
    assert rerank.ranker.plan.backend.context == 8_192
    assert ids(rerank.postprocess_nodes(found, query_str=QUERY)) == WANTED
    assert ids(asyncio.run(rerank.apostprocess_nodes(found, query_str=QUERY))) == WANTED

    async def notebook() -> tuple[Found, Found]:
        return rerank.postprocess_nodes(found, query_str=QUERY), await rerank.apostprocess_nodes(found, query_str=QUERY)

    for chosen in asyncio.run(notebook()):
        assert ids(chosen) == WANTED


def test_async_callers_are_served_on_their_own_loop_and_sync_ones_by_the_sync_method(found: Found) -> None:
    loops: list[Any] = []

    async def slow(text: str) -> str:
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return text

    def spoken(messages: Sequence[ChatMessage], llm: Served, is_async: bool) -> Any:
        text = answer(messages, llm, is_async)
        if is_async:
            return slow(text)
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return text

    rerank = RankR1Rerank(llm=Served(spoken))

    async def here() -> Any:
        await rerank.apostprocess_nodes(found, query_str=QUERY)
        return asyncio.get_running_loop()

    loop = asyncio.run(here())
    assert loops
    assert all(one is loop for one in loops)
    loops.clear()
    rerank.postprocess_nodes(found, query_str=QUERY)
    assert not loops


def test_a_model_in_this_process_is_asked_one_thing_at_a_time_and_holds_up_no_loop(found: Found) -> None:
    inside, most, on_loop = 0, 0, []
    lock = threading.Lock()

    def watched(prompt: str) -> str:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.005)
        on_loop.append(threading.current_thread().name)
        text = say(prompt)
        with lock:
            inside -= 1
        return text

    rerank = RankR1Rerank(llm=Spoken(watched), algorithm="heapsort", size=2)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: rerank.postprocess_nodes(found, query_str=QUERY), range(4)))

    async def many() -> None:
        await asyncio.gather(*(rerank.apostprocess_nodes(found, query_str=QUERY) for _ in range(4)))

    asyncio.run(many())

    async def notebook() -> None:
        task = asyncio.create_task(rerank.apostprocess_nodes(found, query_str=QUERY))
        await asyncio.sleep(0.002)
        rerank.postprocess_nodes(found, query_str=QUERY)
        await task

    asyncio.run(notebook())
    assert most == 1
    assert set(on_loop) == {"rankr1-call"}


def held_up(rerank: RankR1Rerank, found: Found, begun: Any) -> list[Found]:
    """An async call, and a sync one in the same loop while that is under way: a notebook, a sync engine in a server."""

    async def both() -> list[Found]:
        task = asyncio.create_task(rerank.apostprocess_nodes(found, query_str=QUERY))
        await asyncio.sleep(0)
        await begun()
        return [rerank.postprocess_nodes(found, query_str=QUERY), await task]

    chosen: list[Found] = []
    thread = threading.Thread(target=lambda: chosen.extend(asyncio.run(both())), daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "both wait for ever"
    return chosen


@pytest.mark.parametrize("settings", [{}, {"requests": 1}, {"in_flight": 1}, {"store": "store.sqlite"}], ids=str)
@pytest.mark.parametrize("kind", [Spoken, Served])
def test_a_sync_call_never_waits_for_what_waits_for_its_own_loop(
    kind: Any, settings: dict[str, Any], found: Found, tmp_path: Path
) -> None:
    if "store" in settings:
        settings = {"store": tmp_path / settings["store"]}
    asked = threading.Event()

    def slowly(messages: Sequence[ChatMessage], llm: Served, is_async: bool) -> Any:
        asked.set()
        text = answer(messages, llm, is_async)
        return later(text) if is_async else text

    async def later(text: str) -> str:
        await asyncio.sleep(0.01)
        return text

    def spoken(prompt: str) -> str:
        asked.set()
        return say(prompt)

    async def begun() -> None:
        while not asked.is_set():
            await asyncio.sleep(0.001)

    rerank = RankR1Rerank(llm=kind(spoken if kind is Spoken else slowly), top_n=3, **settings)
    assert [ids(chosen) for chosen in held_up(rerank, found, begun)] == [WANTED] * 2
    rerank.close()


def test_the_thinking_budget_and_the_temperature_are_the_rerankers_and_the_llm_stays_as_it_was(found: Found) -> None:
    asked = set()

    def limits(messages: Sequence[ChatMessage], llm: Served, is_async: bool) -> str:
        asked.add((llm.max_tokens, llm.temperature))
        return answer(messages, llm, is_async)

    llm = Served(limits, max_tokens=17)
    for given, wanted in (
        ({"reasoning_tokens": 100, "temperature": 0.0}, (116, 0.0)),
        ({"reasoning_tokens": 100}, (116, 0.7)),
        ({"temperature": 0.5}, (17, 0.5)),
        ({}, (17, 0.7)),
    ):
        asked.clear()
        RankR1Rerank(llm=llm, **given).postprocess_nodes(found, query_str=QUERY)
        assert asked == {wanted}
        assert (llm.max_tokens, llm.temperature) == (17, 0.7)
    asked.clear()
    RankR1Rerank(llm=Served(limits, temperature=None), temperature=0.5).postprocess_nodes(found, query_str=QUERY)
    assert asked == {(None, None)}


@pytest.mark.parametrize("name", ["o1", "o3-mini", "gpt-4o"])
def test_a_hosted_model_keeps_the_temperature_that_its_maker_wants(name: str) -> None:
    llm = OpenAI(model=name, api_key="none")
    backend: Any = RankR1Rerank(llm=llm).ranker.plan.backend
    assert backend.with_limits(Request([], 1_040))._get_model_kwargs() == llm._get_model_kwargs()


def test_a_model_without_a_name_goes_by_its_class(found: Found) -> None:
    class Nameless(Served):
        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata()

    assert RankR1Rerank(llm=Nameless(answer)).ranker.plan.backend.model == Nameless.class_name()
    assert RankR1Rerank(llm=Nameless(answer), context=777).ranker.plan.backend.context == 777


def reply(text: str, reason: str = "stop", **usage: int) -> ChatResponse:
    raw = {"choices": [{"finish_reason": reason}], "usage": usage}
    return ChatResponse(message=ChatMessage(role="assistant", content=text), raw=raw)


def test_a_thought_that_ran_over_its_budget_is_ended_and_its_label_asked_for(found: Found) -> None:
    def cut(messages: Sequence[ChatMessage], llm: Served, is_async: bool) -> ChatResponse:
        if len(messages) > 2:
            return reply("<answer>[2]</answer>", prompt_tokens=50, completion_tokens=5)
        return reply("<think>so much to think about", "length", prompt_tokens=40, completion_tokens=20)

    told: list[Ranking] = []
    rerank = RankR1Rerank(llm=Served(cut), top_n=1, on_ranking=told.append)
    assert ids(rerank.postprocess_nodes(found, query_str=QUERY)) == ids(found)[1:2]
    cost = told[0].cost
    assert (cost.comparisons, cost.forced, cost.unparsed) == (1, 1, 0)
    assert (cost.prompt_tokens, cost.completion_tokens) == (90, 25)


def test_a_thought_that_the_framework_keeps_apart_is_the_reasoning(found: Found) -> None:
    types = pytest.importorskip("llama_index.core.base.llms.types")
    if not hasattr(types, "ThinkingBlock"):
        pytest.skip("this version of LlamaIndex has no thinking blocks")

    def thinks(messages: Sequence[ChatMessage], llm: Served, is_async: bool) -> ChatResponse:
        blocks = [types.ThinkingBlock(content="it names the year"), types.TextBlock(text="<answer>[2]</answer>")]
        return ChatResponse(message=ChatMessage(role="assistant", blocks=blocks))

    rerank = RankR1Rerank(llm=Served(thinks), include_reasoning=True, top_n=1)
    (chosen,) = rerank.postprocess_nodes(found, query_str=QUERY)
    assert chosen.node.metadata["rankr1_reasoning"] == "it names the year"


@pytest.mark.parametrize("raw", [None, {}, {"usage": None}, {"choices": []}, {"choices": [None]}])
def test_an_empty_answer_of_any_shape_is_counted_and_the_retriever_trusted(found: Found, raw: Any) -> None:
    def nothing(messages: Sequence[ChatMessage], llm: Served, is_async: bool) -> ChatResponse:
        return ChatResponse(message=ChatMessage(role="assistant", blocks=[]), raw=raw)

    told: list[Ranking] = []
    rerank = RankR1Rerank(llm=Served(nothing), on_ranking=told.append)
    assert ids(rerank.postprocess_nodes(found, query_str=QUERY)) == ids(found)[:5]
    assert told[0].cost.unparsed == told[0].cost.comparisons


@pytest.mark.parametrize("is_async", [False, True])
def test_a_failing_llm_is_a_backend_error_or_the_first_stage_order(found: Found, is_async: bool) -> None:
    def fails(messages: Sequence[ChatMessage], llm: Served, _: bool) -> str:
        raise ConnectionError("401 from the provider")

    def ask(rerank: RankR1Rerank) -> Found:
        if is_async:
            return asyncio.run(rerank.apostprocess_nodes(found, query_str=QUERY))
        return rerank.postprocess_nodes(found, query_str=QUERY)

    with pytest.raises(BackendError, match="'served' failed: ConnectionError: 401 from the provider"):
        ask(RankR1Rerank(llm=Served(fails)))
    assert ids(ask(RankR1Rerank(llm=Served(fails), on_failure="first_stage"))) == ids(found)[:5]


def test_an_async_caller_who_leaves_ends_the_request(found: Found) -> None:
    ended: list[str] = []

    async def hangs() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return ""

    rerank = RankR1Rerank(llm=Served(lambda messages, llm, is_async: hangs()))

    async def impatient() -> None:
        async with asyncio.timeout(0.1):
            await rerank.apostprocess_nodes(found, query_str=QUERY)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    assert ended == ["cancelled"]


def test_settings_of_a_connection_do_not_go_with_an_llm_but_a_store_does(found: Found, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="llm= has a connection of its own: leave out base_url, model"):
        RankR1Rerank(llm=Served(answer), model="x", base_url="http://localhost:1/v1")
    with pytest.raises(ValueError, match="leave out llm"):
        RankR1Rerank(llm=Served(answer), reranker=RankR1Rerank(llm=Served(answer)).ranker)
    told: list[Ranking] = []
    rerank = RankR1Rerank(llm=Served(answer), store=tmp_path / "store.sqlite", on_ranking=told.append)
    for _ in range(2):
        rerank.postprocess_nodes(found, query_str=QUERY)
    assert (told[0].cost.stored, told[1].cost.stored) == (0, told[1].cost.comparisons)
    rerank.close()


def test_a_closed_component_says_so_and_leaves_the_llm_alone(found: Found) -> None:
    llm = Served(answer)
    rerank = RankR1Rerank(llm=llm, top_n=3)
    rerank.close()
    with pytest.raises(RuntimeError, match="closed"):
        rerank.postprocess_nodes(found, query_str=QUERY)
    assert ids(RankR1Rerank(llm=llm, top_n=3).postprocess_nodes(found, query_str=QUERY)) == WANTED


@pytest.mark.slow
class TestOverARealServer:
    """LlamaIndex's own OpenAI-compatible LLM against a real server with a real (untrained) model."""

    @pytest.fixture
    def clients(self) -> Iterator[dict[str, Any]]:
        """HTTP clients that a test can close, which LlamaIndex's LLMs cannot."""
        with httpx.Client() as client:
            yield {"http_client": client, "async_http_client": httpx.AsyncClient()}

    @pytest.fixture
    def llm(self, llama: str, clients: dict[str, Any]) -> OpenAILike:
        known = {"is_chat_model": True, "context_window": 4_096, "max_retries": 0}
        return OpenAILike(model="smollm2", api_base=llama, api_key="none", **known, **clients)

    def test_sync_and_async_callers_take_turns_on_one_llm_that_the_pipeline_uses_too(
        self, llm: OpenAILike, clients: dict[str, Any], found: Found
    ) -> None:
        told: list[Ranking] = []
        rerank = RankR1Rerank(llm=llm, top_n=2, size=3, on_ranking=told.append, **BRIEF)

        async def notebook() -> None:
            async with clients["async_http_client"]:
                for _ in range(2):
                    assert len(rerank.postprocess_nodes(found, query_str=QUERY)) == 2
                    await llm.achat([ChatMessage(role="user", content="Say yes.")], max_tokens=4)
                    await asyncio.gather(*(rerank.apostprocess_nodes(found, query_str=QUERY) for _ in range(2)))
                    llm.chat([ChatMessage(role="user", content="Say yes.")], max_tokens=4)

        asyncio.run(notebook())
        assert len(told) == 6
        for ranking in told:
            assert ranking.failure is None
            assert ranking.cost.prompt_tokens > 100 * ranking.cost.comparisons
            assert 0 < ranking.cost.completion_tokens <= (8 + 16 + 16) * ranking.cost.comparisons
            assert ranking.cost.forced > 0

    def test_it_pickles_by_the_llms_own_settings(self, llama: str, found: Found) -> None:
        known = {"is_chat_model": True, "context_window": 4_096, "max_retries": 0}
        llm = OpenAILike(model="smollm2", api_base=llama, api_key="none", **known)
        rerank = RankR1Rerank(llm=llm, top_n=1, size=6, reasoning_tokens=8)
        again = pickle.loads(pickle.dumps(rerank))
        assert again.ranker.plan.backend.identity == rerank.ranker.plan.backend.identity
        assert ids(again.postprocess_nodes(found, query_str=QUERY)) == ids(
            rerank.postprocess_nodes(found, query_str=QUERY)
        )

    def test_the_simple_arguments_ask_the_same_server(self, llama: str) -> None:
        told: list[Ranking] = []
        found = [NodeWithScore(node=TextNode(text=text)) for text in ("a novel", "a town", "a river")]
        rerank = RankR1Rerank(
            model="smollm2", base_url=llama, server="llama-server", top_n=1, on_ranking=told.append, **BRIEF
        )
        assert len(rerank.postprocess_nodes(found, query_str="Which is a river?")) == 1
        assert told[0].cost.unparsed == 0
        rerank.close()
