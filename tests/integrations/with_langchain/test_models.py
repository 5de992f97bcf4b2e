"""`llm=`: any chat model of LangChain, whatever stands around it and whatever it says."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import SimpleChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_rankr1 import RankR1Rerank

from rankr1_rag import BackendError, Completion, Ranking, UnparsedError
from rankr1_rag.backends import Request
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.conftest import QUERY, WANTED, knows_best
from tests.integrations.with_langchain.parts import Chat, Limited, documents, ids


class Simple(SimpleChatModel):
    """The least that a chat model can be: a sync method that gives a string."""

    @property
    def _llm_type(self) -> str:
        return "simple"

    def _call(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> str:
        return knows_best([{"content": message.content} for message in messages])


def says(prompt: Any) -> str:
    return knows_best([dict(message) for message in prompt])


def thinks_apart(prompt: Any) -> AIMessage:
    thought, answer = says(prompt).removeprefix("<think>").split("</think>")
    return AIMessage([{"type": "reasoning", "reasoning": thought}, {"type": "text", "text": answer}])


def thinks_beside(prompt: Any) -> AIMessage:
    thought, answer = says(prompt).removeprefix("<think>").split("</think>")
    return AIMessage(answer, additional_kwargs={"reasoning_content": thought})


CHAT = Chat(backend=Scripted(knows_best, model="knows-best"))


def both_ways(compressor: RankR1Rerank) -> list[list[str | None]]:
    """What comes back sync and async."""
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
        pytest.param(RunnableLambda(says), id="runnable-of-str"),
        pytest.param(RunnableLambda(thinks_apart), id="reasoning-blocks"),
        pytest.param(RunnableLambda(thinks_beside), id="reasoning-content"),
    ],
)
def test_any_chat_model_may_judge_and_its_reasons_are_kept(llm: Runnable[Any, Any]) -> None:
    rankings: list[Ranking] = []
    assert both_ways(RankR1Rerank(llm=llm, top_n=3, on_ranking=rankings.append)) == [WANTED] * 2
    for ranking in rankings:
        assert ranking.cost.unparsed == ranking.cost.forced == 0
        assert [ranking.explain(rank).reasoning for rank in (1, 2, 3)] == [f"{key} is what is wanted" for key in WANTED]


@pytest.mark.parametrize("llm", ["gpt-4o", len, knows_best, object()])
def test_what_is_no_runnable_is_refused(llm: Any) -> None:
    with pytest.raises(ValueError, match=r"llm\n.*instance of Runnable|llm='gpt-4o' is a name"):
        RankR1Rerank(llm=llm)


@pytest.mark.parametrize(
    ("text", "settings", "order", "unparsed"),
    [
        ("Sure! <think>it is</think> So: <answer>[4]</answer> Anything else?", {}, "dublin", False),
        ("Of these, the fourth passage seems to be best.", {}, "stoker", True),
        ("", {}, "stoker", True),
        ("<answer>[99]</answer>", {}, "stoker", True),
        ("Passage [4], I think.", {"format": "rank-r1-v0.1"}, "stoker", True),
    ],
)
def test_a_chatty_answer_counts_if_it_names_a_label_and_else_the_retriever_is_trusted(
    text: str, settings: dict[str, Any], order: str, unparsed: bool
) -> None:
    rankings: list[Ranking] = []
    chat = Chat(backend=Scripted(lambda _: text))
    compressor = RankR1Rerank(llm=chat, top_n=1, on_ranking=rankings.append, force="truncated", **settings)
    assert both_ways(compressor) == [[order]] * 2
    assert [ranking.cost.unparsed for ranking in rankings] == [int(unparsed)] * 2


@pytest.mark.parametrize("text", ["", "I cannot say.", "<answer>[7]</answer>"])
def test_strict_raises_where_an_answer_names_no_passage(text: str) -> None:
    compressor = RankR1Rerank(llm=Chat(backend=Scripted(lambda _: text)), strict=True, force="never")
    with pytest.raises(UnparsedError, match=r"names no passage of 1\.\.6"):
        compressor.compress_documents(documents(), QUERY)
    with pytest.raises(UnparsedError, match=r"names no passage of 1\.\.6"):
        asyncio.run(compressor.acompress_documents(documents(), QUERY))


def test_a_thought_that_was_cut_off_has_its_label_forced() -> None:
    def thinks_too_long(messages: Any) -> Completion:
        if len(messages) > 2:
            return Completion("<answer>[2]</answer>", 80, completion_tokens=3)
        return Completion("<think>it may be that", 70, completion_tokens=9, finish_reason="length")

    rankings: list[Ranking] = []
    chat = Chat(backend=Scripted(thinks_too_long))
    compressor = RankR1Rerank(llm=chat, top_n=1, force="truncated", on_ranking=rankings.append)
    assert both_ways(compressor) == [["dracula"]] * 2
    for cost in (ranking.cost for ranking in rankings):
        assert (cost.forced, cost.unparsed) == (1, 0)
        assert (cost.prompt_tokens, cost.completion_tokens) == (150, 12)


def unavailable(messages: Any) -> str:
    raise BackendError("out of memory")


def broken(messages: Any) -> str:
    raise KeyError("weights")


@pytest.mark.parametrize(
    ("script", "problem"), [(unavailable, "out of memory"), (broken, "failed: KeyError: 'weights'")]
)
def test_a_failing_model_raises_one_plain_error(script: Callable[[Any], str], problem: str) -> None:
    compressor = RankR1Rerank(llm=Chat(backend=Scripted(script)))
    with pytest.raises(BackendError, match=problem):
        compressor.compress_documents(documents(), QUERY)
    with pytest.raises(BackendError, match=problem):
        asyncio.run(compressor.acompress_documents(documents(), QUERY))


@pytest.mark.parametrize("script", [unavailable, broken])
def test_a_failing_model_may_leave_the_first_stage_order_which_is_told(
    script: Callable[[Any], str], caplog: pytest.LogCaptureFixture
) -> None:
    rankings: list[Ranking] = []
    chat = Chat(backend=Scripted(script))
    compressor = RankR1Rerank(llm=chat, on_failure="first_stage", on_ranking=rankings.append)
    assert both_ways(compressor) == [ids(documents())[:5]] * 2
    assert all(ranking.failure for ranking in rankings)
    assert [record.levelname for record in caplog.records if "first-stage order" in record.message] == ["WARNING"] * 2


def test_a_model_that_fails_now_and_then_is_asked_again_by_its_own_retries() -> None:
    calls = iter(range(1_000))

    def moody(messages: Any) -> str:
        if next(calls) % 2 == 0:
            raise ConnectionError("reset by peer")
        return knows_best(messages)

    patient = Chat(backend=Scripted(moody)).with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
    assert both_ways(RankR1Rerank(llm=patient, top_n=3)) == [WANTED] * 2


def test_a_model_with_limits_gets_them_in_one_copy_and_stays_as_it_was(judge: Scripted) -> None:
    model = Limited(backend=judge)
    compressor = RankR1Rerank(llm=model, top_n=3, reasoning_tokens=77, temperature=0.0)
    for _ in range(5):
        assert ids(compressor.compress_documents(documents(), QUERY)) == WANTED
    assert set(model.asked) == {model.asked[0]}
    limit, temperature = model.asked[0]
    assert limit is not None
    assert limit >= 77
    assert temperature == 0.0
    assert len(model.copies) == 1
    assert (model.max_tokens, model.temperature) == (None, 0.7)


def test_a_model_that_takes_no_temperature_is_given_none(judge: Scripted) -> None:
    model = Limited(backend=judge, temperature=None)
    RankR1Rerank(llm=model).compress_documents(documents(), QUERY)
    assert {temperature for _, temperature in model.asked} == {None}


class Named(Limited):
    model_name: str


WRAPPERS = [
    pytest.param(lambda model: model, id="plain"),
    pytest.param(lambda model: model.bind(stop=["\n\n\n"]), id="bind"),
    pytest.param(lambda model: model.with_retry(), id="retry"),
    pytest.param(lambda model: model.bind(stop=["\n\n\n"]).with_config(tags=["t"]).with_retry(), id="all"),
]


@pytest.mark.parametrize("wrapped", WRAPPERS)
def test_its_name_is_the_models_so_that_a_known_checkpoint_brings_its_settings(
    wrapped: Callable[[Named], Any], judge: Scripted
) -> None:
    model = Named(backend=judge, model_name="ielabgroup/Setwise-SFT-7B-v0.1")
    plan = RankR1Rerank(llm=wrapped(model)).ranker.plan
    assert plan.backend.model == "ielabgroup/Setwise-SFT-7B-v0.1"
    assert plan.format.name == "setwise-sft-v0.1"


@pytest.mark.parametrize("wrapped", WRAPPERS)
def test_two_models_share_no_completions(wrapped: Callable[[Named], Any], judge: Scripted, tmp_path: Path) -> None:
    first = Named(backend=Scripted(lambda _: "<answer>[1]</answer>"), model_name="names-the-first")
    best = Named(backend=judge, model_name="knows-best")
    for model, found in [(first, "stoker"), (best, "dracula")]:
        compressor = RankR1Rerank(llm=wrapped(model), store=tmp_path / "completions.sqlite", top_n=1)
        assert ids(compressor.compress_documents(documents(), QUERY)) == [found]
        compressor.close()


@pytest.mark.parametrize("wrapped", WRAPPERS)
def test_its_limits_are_set_through_what_stands_around_it(wrapped: Callable[[Named], Any], judge: Scripted) -> None:
    model = Named(backend=judge, model_name="knows-best")
    RankR1Rerank(llm=wrapped(model), reasoning_tokens=77, temperature=0.0).compress_documents(documents(), QUERY)
    assert {temperature for _, temperature in model.asked} == {0.0}
    assert all(limit is not None and limit >= 77 for limit, _ in model.asked)


@pytest.mark.parametrize("wrapped", WRAPPERS)
def test_its_own_limits_stay_where_none_are_given(wrapped: Callable[[Named], Any], judge: Scripted) -> None:
    model = Named(backend=judge, model_name="knows-best")
    own = {(model.max_tokens, model.temperature)}
    RankR1Rerank(llm=wrapped(model)).compress_documents(documents(), QUERY)
    assert set(model.asked) == own


def test_every_fallback_has_the_limits_too(judge: Scripted) -> None:
    def fails(messages: Any) -> str:
        raise OSError("gone")

    first = Named(backend=Scripted(fails), model_name="fails")
    second = Named(backend=judge, model_name="knows-best")
    RankR1Rerank(llm=first.with_fallbacks([second]), reasoning_tokens=77).compress_documents(documents(), QUERY)
    assert first.asked
    assert {limit for limit, _ in second.asked} == {93}


@pytest.mark.parametrize("name", ["o1", "o3-mini", "gpt-5", "gpt-4o"])
def test_a_hosted_model_keeps_the_temperature_that_its_maker_wants(name: str) -> None:
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=name, api_key="none")
    backend = RankR1Rerank(llm=model).ranker.plan.backend
    asked = backend.with_limits(Request([], 1_040))  # type: ignore[attr-defined]
    assert asked._get_request_payload("?") == model._get_request_payload("?")


def test_a_reasoning_block_without_text_is_none(judge: Scripted) -> None:
    blocks = [{"type": "reasoning", "reasoning": None}, {"type": "text", "text": "<answer>[2]</answer>"}]
    rankings: list[Ranking] = []
    model = RunnableLambda(lambda messages: AIMessage(blocks))
    RankR1Rerank(llm=model, top_n=1, on_ranking=rankings.append).compress_documents(documents(), QUERY)
    assert rankings[0].cost.unparsed == 0
    assert rankings[0].order[0] == 1
