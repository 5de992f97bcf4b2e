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


def moody() -> Chat:
    """A model that fails at every other call."""
    calls = iter(range(1_000))

    def judge(messages: Any) -> str:
        if next(calls) % 2 == 0:
            raise ConnectionError("reset by peer")
        return knows_best(messages)

    return Chat(backend=Scripted(judge))


CHAT = Chat(backend=Scripted(knows_best, model="knows-best"))
LLMS: dict[str, Runnable[Any, Any]] = {
    "simple": Simple(),
    "native async": CHAT,
    "retry": CHAT.with_retry(stop_after_attempt=2),
    "retry that is needed": moody().with_retry(stop_after_attempt=3, wait_exponential_jitter=False),
    "bind": CHAT.bind(stop=["\n\n\n"]),
    "config": CHAT.with_config(tags=["t"]).with_retry(),
    "fallbacks": CHAT.with_fallbacks([Simple()]),
    "runnable of str": RunnableLambda(answer),
    "reasoning blocks": RunnableLambda(reasoning_block),
    "reasoning_content": RunnableLambda(reasoning_field),
}


@pytest.mark.parametrize("llm", LLMS.values(), ids=LLMS)
def test_any_chat_model_may_judge_and_its_reasons_are_kept(llm: Runnable[Any, Any]) -> None:
    rankings: list[Ranking] = []
    compressor = RankR1Rerank(llm=llm, top_n=3, on_ranking=rankings.append)
    assert ids(compressor.compress_documents(documents(), QUERY)) == WANTED
    assert ids(asyncio.run(compressor.acompress_documents(documents(), QUERY))) == WANTED
    for ranking in rankings:
        assert ranking.cost.unparsed == ranking.cost.forced == 0
        assert [ranking.explain(rank).reasoning for rank in (1, 2, 3)] == [f"{key} is what is wanted" for key in WANTED]


WRAPPERS: dict[str, Callable[[Chat], Any]] = {
    "bind": lambda model: model.bind(stop=["\n\n\n"]),
    "retry": lambda model: model.with_retry(),
    "all": lambda model: model.bind(stop=["\n\n\n"]).with_config(tags=["t"]).with_retry(),
}


@pytest.mark.parametrize("wrapped", WRAPPERS.values(), ids=WRAPPERS)
def test_limits_names_and_identity_pass_through_wrappers(wrapped: Callable[[Chat], Any]) -> None:
    model = Chat(backend=Scripted(knows_best, model="ielabgroup/Rank-R1-7B-v0.1"))
    compressor = RankR1Rerank(llm=wrapped(model), reasoning_tokens=77, temperature=0.0)
    assert compressor.ranker.plan.format.name == "rank-r1-v0.1"
    other = RankR1Rerank(llm=wrapped(Chat(backend=Scripted(knows_best, model="other"))))
    assert other.ranker.plan.backend.identity != compressor.ranker.plan.backend.identity
    for one, limits in ((compressor, (93, 0.0)), (RankR1Rerank(llm=wrapped(model)), (None, 0.7))):
        model.calls.clear()
        one.compress_documents(documents(), QUERY)
        assert {(call.llm.max_tokens, call.llm.temperature) for call in model.calls} == {limits}


def test_every_fallback_has_the_limits_too(judge: Scripted) -> None:
    def fails(messages: Any) -> str:
        raise OSError("gone")

    first, second = Chat(backend=Scripted(fails)), Chat(backend=judge)
    RankR1Rerank(llm=first.with_fallbacks([second]), reasoning_tokens=77).compress_documents(documents(), QUERY)
    assert {call.llm.max_tokens for call in [*first.calls, *second.calls]} == {93}
    assert len(first.calls) == len(second.calls)


def test_a_reasoning_block_may_lack_its_text() -> None:
    blocks = [{"type": "reasoning", "reasoning": None}, {"type": "text", "text": "<answer>[2]</answer>"}]
    model = RunnableLambda(lambda messages: AIMessage(blocks))
    assert ids(RankR1Rerank(llm=model, top_n=1, strict=True).compress_documents(documents(), QUERY)) == ["dracula"]
