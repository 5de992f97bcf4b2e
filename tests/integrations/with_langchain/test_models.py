"""`llm=`: any chat model of LangChain, with any wrapper and any form of reasoning."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.language_models import SimpleChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_rankr1 import RankR1Rerank

from rankr1_rag import Ranking
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.conftest import QUERY, WANTED, knows_best
from tests.integrations.with_langchain.parts import Chat, documents, ids


class Simple(SimpleChatModel):
    """The smallest chat model: a sync method that returns a string."""

    @property
    def _llm_type(self) -> str:
        return "simple"

    def _call(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> str:
        return knows_best([{"content": message.content} for message in messages])


def answer(prompt: Any) -> str:
    return knows_best([dict(message) for message in prompt])


def reasoning_block(prompt: Any) -> AIMessage:
    reasoning, text = answer(prompt).removeprefix("<think>").split("</think>")
    return AIMessage([{"type": "reasoning", "reasoning": reasoning}, {"type": "text", "text": text}])


def reasoning_field(prompt: Any) -> AIMessage:
    reasoning, text = answer(prompt).removeprefix("<think>").split("</think>")
    return AIMessage(text, additional_kwargs={"reasoning_content": reasoning})


CHAT = Chat(backend=Scripted(knows_best, model="knows-best"))


def both_ways(compressor: RankR1Rerank) -> list[list[str | None]]:
    """The ids of a sync and of an async call."""
    return [
        ids(compressor.compress_documents(documents(), QUERY)),
        ids(asyncio.run(compressor.acompress_documents(documents(), QUERY))),
    ]


@pytest.mark.parametrize(
    "llm",
    [
        pytest.param(Simple(), id="simple"),
        pytest.param(CHAT, id="native-async"),
        pytest.param(CHAT.with_retry(stop_after_attempt=2), id="retry"),
        pytest.param(CHAT.bind(stop=["\n\n\n"]), id="bind"),
        pytest.param(CHAT.with_config(tags=["t"]).with_retry(), id="config"),
        pytest.param(CHAT.with_fallbacks([Simple()]), id="fallbacks"),
        pytest.param(RunnableLambda(answer), id="runnable-of-str"),
        pytest.param(RunnableLambda(reasoning_block), id="reasoning-blocks"),
        pytest.param(RunnableLambda(reasoning_field), id="reasoning-content"),
    ],
)
def test_any_chat_model_may_judge_and_its_reasons_are_kept(llm: Runnable[Any, Any]) -> None:
    rankings: list[Ranking] = []
    assert both_ways(RankR1Rerank(llm=llm, top_n=3, on_ranking=rankings.append)) == [WANTED] * 2
    for ranking in rankings:
        assert ranking.cost.unparsed == ranking.cost.forced == 0
        assert [ranking.explain(rank).reasoning for rank in (1, 2, 3)] == [f"{key} is what is wanted" for key in WANTED]


def test_a_model_may_bring_its_own_retries() -> None:
    calls = iter(range(1_000))

    def moody(messages: Any) -> str:
        if next(calls) % 2 == 0:
            raise ConnectionError("reset by peer")
        return knows_best(messages)

    patient = Chat(backend=Scripted(moody)).with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
    assert both_ways(RankR1Rerank(llm=patient, top_n=3)) == [WANTED] * 2


WRAPPERS = [
    pytest.param(lambda model: model.bind(stop=["\n\n\n"]), id="bind"),
    pytest.param(lambda model: model.with_retry(), id="retry"),
    pytest.param(lambda model: model.bind(stop=["\n\n\n"]).with_config(tags=["t"]).with_retry(), id="all"),
]


@pytest.mark.parametrize("wrapped", WRAPPERS)
def test_limits_names_and_identity_pass_through_wrappers(wrapped: Callable[[Chat], Any]) -> None:
    model = Chat(backend=Scripted(knows_best, model="ielabgroup/Rank-R1-7B-v0.1"))
    compressor = RankR1Rerank(llm=wrapped(model), reasoning_tokens=77, temperature=0.0)
    assert compressor.ranker.plan.format.name == "rank-r1-v0.1"
    other = RankR1Rerank(llm=wrapped(Chat(backend=Scripted(knows_best, model="other"))))
    assert other.ranker.plan.backend.identity != compressor.ranker.plan.backend.identity
    compressor.compress_documents(documents(), QUERY)
    assert {(call.llm.max_tokens, call.llm.temperature) for call in model.calls} == {(93, 0.0)}
    model.calls.clear()
    RankR1Rerank(llm=wrapped(model)).compress_documents(documents(), QUERY)
    assert {(call.llm.max_tokens, call.llm.temperature) for call in model.calls} == {(None, 0.7)}


def test_every_fallback_has_the_limits_too(judge: Scripted) -> None:
    def fails(messages: Any) -> str:
        raise OSError("gone")

    first, second = Chat(backend=Scripted(fails)), Chat(backend=judge)
    RankR1Rerank(llm=first.with_fallbacks([second]), reasoning_tokens=77).compress_documents(documents(), QUERY)
    assert {call.llm.max_tokens for call in [*first.calls, *second.calls]} == {93}
    assert len(first.calls) == len(second.calls)


def test_a_reasoning_block_may_lack_its_text() -> None:
    blocks = [{"type": "reasoning", "reasoning": None}, {"type": "text", "text": "<answer>[2]</answer>"}]
    rankings: list[Ranking] = []
    model = RunnableLambda(lambda messages: AIMessage(blocks))
    RankR1Rerank(llm=model, top_n=1, on_ranking=rankings.append).compress_documents(documents(), QUERY)
    assert rankings[0].cost.unparsed == 0
    assert rankings[0].order[0] == 1
