"""Handlers and traces: a run of its own, the model's calls below it, the whole ranking as an event."""

import asyncio
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers import Run
from langchain_rankr1 import RankR1Rerank

from rankr1_rag import BackendError, Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.both import LangChain
from tests.integrations.conftest import QUERY, WANTED
from tests.integrations.with_langchain.parts import AsyncEvents, Chat, Events, Traces, around, documents, ids

INPUT = {"query": QUERY, "documents": documents()}


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
    reranked = ("RankR1Rerank", [("Chat", [])] * calls)
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
    assert (name, below, {each for each, _ in calls}) == ("outer", "RankR1Rerank", {"Chat"})
    assert [name for name, _ in events.events] == ["rankr1"]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_failure_ends_the_run_with_its_error(way: str) -> None:
    def broken(messages: object) -> str:
        raise BackendError("out of memory")

    traces = Traces()
    with pytest.raises(BackendError, match="out of memory"):
        DIRECT[way](RankR1Rerank(reranker=Reranker(Scripted(broken))), [traces])
    assert "out of memory" in traces.runs[0].error


def test_events_can_be_streamed_and_an_async_handler_runs_on_the_loop_of_the_caller(compressor: RankR1Rerank) -> None:
    handler = AsyncEvents()

    async def events() -> list[Any]:
        stream = compressor.as_runnable().astream_events(INPUT, {"callbacks": [handler]}, version="v2")
        found = [event async for event in stream if event["event"] == "on_custom_event"]
        assert handler.loops == [asyncio.get_running_loop()]
        return found

    (event,) = asyncio.run(events())
    assert (event["name"], [passage.id for passage in event["data"].passages[:3]]) == ("rankr1", WANTED)


def test_many_queries_at_once_have_runs_of_their_own(judge: Scripted) -> None:
    traces, step = Traces(), RankR1Rerank(llm=Chat(backend=judge), top_n=3).as_runnable()
    inputs = [{"query": f"{QUERY} {n}", "documents": documents()} for n in range(6)]
    asyncio.run(step.abatch(inputs, {"callbacks": [traces]}))
    assert sorted(run.inputs["query"] for run in traces.runs) == [each["query"] for each in inputs]
    assert {name for run in traces.runs for name, _ in tree(run)[1]} == {"Chat"}


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("kind", ["sync", "native"])
def test_the_retrieval_is_a_run_below_the_reranking(way: str, kind: str) -> None:
    traces, both = Traces(), LangChain()
    DIRECT[way](both.component(retrieve=both.retriever(kind)), [traces])
    (run,) = traces.runs
    assert [(below.run_type, below.name) for below in run.child_runs] == [("retriever", "Titles")]
