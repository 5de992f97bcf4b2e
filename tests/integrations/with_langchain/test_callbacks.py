"""What handlers and traces are told: a run of its own, the model's calls below it, the whole ranking as an event."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackHandler, CallbackManager
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers import Run
from langchain_rankr1 import RankR1Rerank

from rankr1_rag import BackendError, Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.conftest import QUERY, WANTED
from tests.integrations.with_langchain.parts import Chat, Told, ToldLater, Traces, documents, ids

Ask = Callable[[RankR1Rerank, Any, BaseCallbackHandler], Any]


def directly(compressor: RankR1Rerank, around: Any, handler: BaseCallbackHandler) -> Any:
    return compressor.compress_documents(documents(), QUERY, callbacks=[handler])


def directly_awaited(compressor: RankR1Rerank, around: Any, handler: BaseCallbackHandler) -> Any:
    return asyncio.run(compressor.acompress_documents(documents(), QUERY, callbacks=[handler]))


def with_a_manager(compressor: RankR1Rerank, around: Any, handler: BaseCallbackHandler) -> Any:
    return compressor.compress_documents(documents(), QUERY, callbacks=CallbackManager.configure([handler]))


def awaited_with_a_manager(compressor: RankR1Rerank, around: Any, handler: BaseCallbackHandler) -> Any:
    return asyncio.run(compressor.acompress_documents(documents(), QUERY, AsyncCallbackManager.configure([handler])))


def through_a_retriever(compressor: RankR1Rerank, around: Any, handler: BaseCallbackHandler) -> Any:
    return around(compressor).invoke(QUERY, {"callbacks": [handler]})


def through_an_awaited_retriever(compressor: RankR1Rerank, around: Any, handler: BaseCallbackHandler) -> Any:
    return asyncio.run(around(compressor).ainvoke(QUERY, {"callbacks": [handler]}))


def through_a_retriever_in_a_loop(compressor: RankR1Rerank, around: Any, handler: BaseCallbackHandler) -> Any:
    async def cell() -> Any:
        return around(compressor).invoke(QUERY, {"callbacks": [handler]})

    return asyncio.run(cell())


def as_a_step(compressor: RankR1Rerank, around: Any, handler: BaseCallbackHandler) -> Any:
    given = {"query": QUERY, "documents": documents()}
    return compressor.as_runnable().invoke(given, {"callbacks": [handler]})


def as_an_awaited_step(compressor: RankR1Rerank, around: Any, handler: BaseCallbackHandler) -> Any:
    given = {"query": QUERY, "documents": documents()}
    return asyncio.run(compressor.as_runnable().ainvoke(given, {"callbacks": [handler]}))


DIRECT = [directly, directly_awaited, with_a_manager, awaited_with_a_manager, as_a_step, as_an_awaited_step]
RETRIEVERS = [through_a_retriever, through_an_awaited_retriever, through_a_retriever_in_a_loop]


@pytest.mark.parametrize("handler", [Told, ToldLater])
@pytest.mark.parametrize("ask", DIRECT + RETRIEVERS)
def test_a_handler_is_told_the_whole_ranking(
    ask: Ask, handler: type[Told] | type[ToldLater], compressor: RankR1Rerank, around: Any
) -> None:
    told = handler()
    assert ids(ask(compressor, around, told)) == WANTED
    ((name, ranking),) = told.events
    assert name == "rankr1"
    assert isinstance(ranking, Ranking)
    assert [passage.id for passage in ranking.passages[:3]] == WANTED
    assert len(ranking) == 6
    assert ranking.query.text == QUERY
    assert ranking.cost.comparisons == len(ranking.trace) > 0
    assert ranking.explain(1).reasoning == "dracula is what is wanted"


def _tree(run: Run) -> Any:
    """The names of a run and of those below it."""
    return run.name, [_tree(each) for each in run.child_runs]


@pytest.mark.parametrize("ask", DIRECT)
def test_the_calls_of_the_model_stand_below_the_run_of_the_reranker(ask: Ask, judge: Scripted, around: Any) -> None:
    traces, rankings = Traces(), []
    ask(RankR1Rerank(llm=Chat(backend=judge), top_n=3, on_ranking=rankings.append), around, traces)
    (run,) = traces.runs
    assert _tree(run) == ("RankR1Rerank", [("Chat", [])] * rankings[0].cost.comparisons)
    assert run.inputs["query"] == QUERY
    assert run.error is None
    assert ids(run.outputs["output"]) == WANTED


@pytest.mark.parametrize("ask", RETRIEVERS)
def test_the_run_of_the_reranker_stands_below_that_of_its_retriever(ask: Ask, judge: Scripted, around: Any) -> None:
    traces, rankings = Traces(), []
    ask(RankR1Rerank(llm=Chat(backend=judge), top_n=3, on_ranking=rankings.append), around, traces)
    reranked = ("RankR1Rerank", [("Chat", [])] * rankings[0].cost.comparisons)
    assert [_tree(run) for run in traces.runs] == [
        ("ContextualCompressionRetriever", [("BM25Retriever", []), reranked])
    ]


@pytest.mark.parametrize("awaited", [False, True])
def test_inside_another_runnable_it_finds_the_handlers_by_itself(awaited: bool, judge: Scripted) -> None:
    compressor = RankR1Rerank(llm=Chat(backend=judge), top_n=3)

    def call(query: str) -> Any:
        return compressor.compress_documents(documents(), query)

    async def acall(query: str) -> Any:
        return await compressor.acompress_documents(documents(), query)

    traces, told = Traces(), Told()
    outer, config = RunnableLambda(call, acall, name="outer"), {"callbacks": [traces, told]}
    asyncio.run(outer.ainvoke(QUERY, config)) if awaited else outer.invoke(QUERY, config)
    name, below = _tree(traces.runs[0])
    assert (name, [each[0] for each in below]) == ("outer", ["RankR1Rerank"])
    assert {each[0] for each in below[0][1]} == {"Chat"}
    assert [name for name, _ in told.events] == ["rankr1"]


@pytest.mark.parametrize("ask", [directly, directly_awaited])
def test_a_failure_ends_the_run_as_one(ask: Ask, around: Any) -> None:
    def broken(messages: object) -> str:
        raise BackendError("out of memory")

    traces = Traces()
    with pytest.raises(BackendError, match="out of memory"):
        ask(RankR1Rerank(reranker=Reranker(Scripted(broken))), around, traces)
    assert "out of memory" in traces.runs[0].error


def test_events_of_the_run_can_be_streamed(compressor: RankR1Rerank) -> None:
    async def events() -> list[Any]:
        step = compressor.as_runnable()
        return [e async for e in step.astream_events({"query": QUERY, "documents": documents()}, version="v2")]

    (event,) = [event for event in asyncio.run(events()) if event["event"] == "on_custom_event"]
    assert event["name"] == "rankr1"
    assert [passage.id for passage in event["data"].passages[:3]] == WANTED


def test_many_queries_at_once_have_runs_of_their_own(judge: Scripted) -> None:
    traces = Traces()
    step = RankR1Rerank(llm=Chat(backend=judge), top_n=3).as_runnable()
    given = [{"query": f"{QUERY} {n}", "documents": documents()} for n in range(6)]
    asyncio.run(step.abatch(given, {"callbacks": [traces]}))
    assert sorted(run.inputs["query"] for run in traces.runs) == [each["query"] for each in given]
    assert {name for run in traces.runs for name, _ in _tree(run)[1]} == {"Chat"}


def test_an_async_handler_is_awaited_on_the_loop_of_the_caller(compressor: RankR1Rerank, around: Any) -> None:
    handler = ToldLater()

    async def ask() -> asyncio.AbstractEventLoop:
        await around(compressor).ainvoke(QUERY, {"callbacks": [handler]})
        return asyncio.get_running_loop()

    loop = asyncio.run(ask())
    assert handler.loops == [loop]
