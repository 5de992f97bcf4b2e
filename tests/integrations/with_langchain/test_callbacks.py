"""Handlers and traces: a run of its own, the model's calls below it, the whole ranking as an event."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers import Run
from langchain_rankr1 import RankR1Rerank

from rankr1_rag import BackendError, Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.both import LangChain
from tests.integrations.conftest import QUERY, WANTED
from tests.integrations.with_langchain.parts import AsyncEvents, Chat, Events, Traces, around, documents, ids

INPUT = {"query": QUERY, "documents": documents()}
CALL = "RankR1Rerank comparison"
WRAPS: dict[str, Callable[[Chat], Any]] = {
    "plain": lambda chat: chat,
    "named": lambda chat: chat.with_config(run_name="mine"),
    "retry": lambda chat: chat.with_retry(),
    "fallbacks": lambda chat: chat.with_fallbacks([chat]),
    "sequence": lambda chat: RunnableLambda(lambda messages: messages) | chat,
    "function": lambda chat: RunnableLambda(lambda messages: chat.invoke(messages)),
}


async def notebook(retriever: Any, config: Any) -> Any:
    return retriever.invoke(QUERY, config)


# Each takes a compressor and handlers.
DIRECT: dict[str, Any] = {
    "sync": lambda c, h: c.compress_documents(documents(), QUERY, callbacks=h),
    "async": lambda c, h: asyncio.run(c.acompress_documents(documents(), QUERY, callbacks=h)),
    "manager": lambda c, h: c.compress_documents(documents(), QUERY, CallbackManager.configure(h)),
    "async manager": lambda c, h: asyncio.run(
        c.acompress_documents(documents(), QUERY, AsyncCallbackManager.configure(h))
    ),
    "step": lambda c, h: c.as_runnable().invoke(INPUT, {"callbacks": h}),
    "async step": lambda c, h: asyncio.run(c.as_runnable().ainvoke(INPUT, {"callbacks": h})),
}
RETRIEVERS: dict[str, Any] = {
    "retriever": lambda c, h: around(c).invoke(QUERY, {"callbacks": h}),
    "async retriever": lambda c, h: asyncio.run(around(c).ainvoke(QUERY, {"callbacks": h})),
    "retriever in a loop": lambda c, h: asyncio.run(notebook(around(c), {"callbacks": h})),
}


def tree(run: Run) -> Any:
    """The names of a run and of the runs below it."""
    return run.name, [tree(each) for each in run.child_runs]


@pytest.mark.parametrize("way", DIRECT | RETRIEVERS)
def test_handlers_get_the_whole_ranking_and_the_models_calls_are_below_the_run(
    way: str, compressor: RankR1Rerank
) -> None:
    events, awaited, traces = Events(), AsyncEvents(), Traces()
    assert ids((DIRECT | RETRIEVERS)[way](compressor, [events, awaited, traces])) == WANTED
    ((name, ranking),) = events.events
    assert awaited.events == [("rankr1", ranking)]
    assert (name, len(ranking), ranking.query.text) == ("rankr1", 6, QUERY)
    assert isinstance(ranking, Ranking)
    assert [passage.id for passage in ranking.passages[:3]] == WANTED
    assert ranking.cost.comparisons == len(ranking.trace) > 0
    assert ranking.explain(1).reasoning == "dracula is what is wanted"
    (run,) = traces.runs
    calls = ranking.cost.comparisons if compressor.llm else 0
    reranked = ("RankR1Rerank", [(CALL, [])] * calls)
    if way in RETRIEVERS:
        assert tree(run) == ("ContextualCompressionRetriever", [("BM25Retriever", []), reranked])
        return
    assert (tree(run), run.inputs["query"], run.error) == (reranked, QUERY, None)
    assert ids(run.outputs["output"]) == WANTED


@pytest.mark.parametrize("awaited", [False, True])
def test_inside_another_runnable_the_handlers_are_inherited(awaited: bool, judge: Scripted) -> None:
    compressor = RankR1Rerank(llm=Chat(backend=judge), top_n=3)

    def call(query: str) -> Any:
        return compressor.compress_documents(documents(), query)

    async def acall(query: str) -> Any:
        return await compressor.acompress_documents(documents(), query)

    traces, events = Traces(), Events()
    outer, config = RunnableLambda(call, acall, name="outer"), {"callbacks": [traces, events]}
    asyncio.run(outer.ainvoke(QUERY, config)) if awaited else outer.invoke(QUERY, config)
    name, ((below, calls),) = tree(traces.runs[0])
    assert (name, below, {each for each, _ in calls}) == ("outer", "RankR1Rerank", {CALL})
    assert [name for name, _ in events.events] == ["rankr1"]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_failure_ends_the_run_with_its_error(way: str) -> None:
    def broken(messages: object) -> str:
        raise BackendError("out of memory")

    traces = Traces()
    with pytest.raises(BackendError, match="out of memory"):
        DIRECT[way](RankR1Rerank(reranker=Reranker(Scripted(broken))), [traces])
    assert "out of memory" in traces.runs[0].error


@pytest.mark.parametrize("on_failure", ["raise", "first_stage"])
@pytest.mark.parametrize("wrap", ["plain", "retry"])
def test_after_a_failure_the_calls_that_were_open_have_ended_too(wrap: str, on_failure: Any) -> None:
    asked = iter(range(100))

    async def second_fails(messages: Any) -> str:
        if next(asked) == 1:
            raise BackendError("out of memory")
        await asyncio.sleep(60)
        return ""

    traces, llm = Traces(), Chat(backend=Scripted(second_fails))
    llm = llm.with_retry(stop_after_attempt=1) if wrap == "retry" else llm
    compressor = RankR1Rerank(llm=llm, size=2, on_failure=on_failure)

    async def rerank() -> None:
        with pytest.raises(BackendError) if on_failure == "raise" else nullcontext():
            await compressor.acompress_documents(documents(), QUERY, callbacks=[traces])
        cancelled = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*cancelled, return_exceptions=True)

    asyncio.run(rerank())
    (run,) = traces.runs
    assert (run.error is None) == (on_failure == "first_stage")
    calls = [call for child in run.child_runs for call in (child.child_runs if wrap == "retry" else [child])]
    assert [call.error.split("(")[0] for call in calls] == ["CancelledError", "BackendError", "CancelledError"]
    assert all(run.end_time >= call.end_time >= call.start_time >= run.start_time for call in calls)


def test_a_call_that_is_open_when_its_event_loop_ends_is_cancelled_quietly() -> None:
    problems: list[Any] = []

    async def endless(messages: Any) -> str:
        await asyncio.sleep(60)
        return ""

    async def leave() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, problem: problems.append(problem))
        compressor = RankR1Rerank(llm=Chat(backend=Scripted(endless)))
        task = asyncio.create_task(compressor.acompress_documents(documents(), QUERY))
        while len(asyncio.all_tasks()) < 3:  # this one, the compressor and its call
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert not task.done()

    asyncio.run(leave())
    assert problems == []


def test_events_can_be_streamed_and_an_async_handler_runs_on_the_loop_of_the_caller(compressor: RankR1Rerank) -> None:
    handler = AsyncEvents()

    async def events() -> list[Any]:
        stream = compressor.as_runnable().astream_events(INPUT, {"callbacks": [handler]}, version="v2")
        found = [event async for event in stream if event["event"] == "on_custom_event"]
        assert handler.loops == [asyncio.get_running_loop()]
        return found

    (event,) = asyncio.run(events())
    assert (event["name"], [passage.id for passage in event["data"].passages[:3]]) == ("rankr1", WANTED)


class Streaming(Chat):
    """It streams whenever it may, as the models of LangChain do."""

    def _stream(self, messages: Any, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=AIMessageChunk(self._generate(messages).generations[0].text))


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("way", ["async", "sync"])
def test_the_calls_of_the_reranker_are_tagged_and_named_so_that_no_stream_shows_them(
    way: str, wrap: Any, judge: Scripted
) -> None:
    step = RankR1Rerank(llm=wrap(Streaming(backend=judge)), top_n=3).as_runnable()
    reader = Streaming(backend=Scripted(lambda messages: "Clontarf"), tags=["reader"])
    rerank = step if way == "async" else RunnableLambda(lambda found: step.invoke(found), name="RankR1Rerank")

    async def events(**names: Any) -> list[Any]:
        chain = rerank | (lambda found: found[0].page_content) | reader
        return [event async for event in chain.astream_events(INPUT, version="v2", **names)]

    asked = [event for event in asyncio.run(events()) if event["event"] == "on_chat_model_start"]
    hidden = [event for event in asked if "nostream" in event["tags"]]
    assert [event["tags"] for event in asked if event not in hidden] == [["seq:step:3", "reader"]]
    assert len(hidden) >= 3
    streamed = [event for event in asyncio.run(events(exclude_tags=["nostream"])) if "chat_model_stream" in str(event)]
    assert "".join(event["data"]["chunk"].content for event in streamed) == "Clontarf"
    if wrap in (WRAPS["plain"], WRAPS["named"]):
        assert {run["name"] for run in hidden} == {CALL if wrap is WRAPS["plain"] else "mine"}


def test_many_queries_at_once_have_runs_of_their_own(judge: Scripted) -> None:
    traces, step = Traces(), RankR1Rerank(llm=Chat(backend=judge), top_n=3).as_runnable()
    inputs = [{"query": f"{QUERY} {n}", "documents": documents()} for n in range(6)]
    asyncio.run(step.abatch(inputs, {"callbacks": [traces]}))
    assert sorted(run.inputs["query"] for run in traces.runs) == [each["query"] for each in inputs]
    assert {name for run in traces.runs for name, _ in tree(run)[1]} == {CALL}


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("kind", ["sync", "native"])
def test_the_retrieval_is_a_run_below_the_reranking(way: str, kind: str) -> None:
    traces, both = Traces(), LangChain()
    DIRECT[way](both.component(retrieve=both.retriever(kind)), [traces])
    (run,) = traces.runs
    assert [(below.run_type, below.name) for below in run.child_runs] == [("retriever", "Titles")]
