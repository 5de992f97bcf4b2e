"""Both kinds of events: the dispatcher's and the legacy callbacks, also for no nodes and for a failure."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import LLMChatStartEvent
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.schema import NodeWithScore
from llama_index.postprocessor.rankr1 import RankR1Rerank

from rankr1_rag import BackendError, Reranker
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.both import LlamaIndex
from tests.integrations.conftest import QUERY, WANTED, knows_best
from tests.integrations.with_llama_index.conftest import Events, Served, ids

Found = list[NodeWithScore]
WAYS: dict[str, Callable[[RankR1Rerank, Found], Found]] = {
    "_postprocess_nodes": lambda rerank, found: rerank.postprocess_nodes(found, query_str=QUERY),
    "_apostprocess_nodes": lambda rerank, found: asyncio.run(rerank.apostprocess_nodes(found, query_str=QUERY)),
}
both_ways = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
def spans() -> Iterator[SimpleSpanHandler]:
    root, handler = get_dispatcher(), SimpleSpanHandler()
    root.add_span_handler(handler)
    yield handler
    root.span_handlers.remove(handler)


def made(script: Any = knows_best, **settings: Any) -> tuple[RankR1Rerank, LlamaDebugHandler]:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    reranker = Reranker(Scripted(script, model="the-judge"))
    return RankR1Rerank(reranker=reranker, callback_manager=CallbackManager([debug]), **settings), debug


def traced(messages: Any) -> str:
    get_dispatcher().event(LLMChatStartEvent(messages=[], additional_kwargs={}, model_dict={}))
    return knows_best(messages)


def in_order(events: Events) -> list[type]:
    """The kinds of the events, whose times are those of their order; repeated ones once."""
    times = [event.timestamp for event in events.seen]
    assert times == sorted(times)
    return list(dict.fromkeys(type(event) for event in events.seen))


@both_ways
def test_start_and_end_have_query_nodes_model_and_the_whole_ranking(way: str, found: Found, events: Events) -> None:
    rerank, debug = made(traced, top_n=3)
    chosen = WAYS[way](rerank, found)
    assert in_order(events) == [ReRankStartEvent, LLMChatStartEvent, ReRankEndEvent]
    (start,), (end,) = events.of(ReRankStartEvent), events.of(ReRankEndEvent)
    assert start.query.query_str == QUERY
    assert (start.top_n, start.model_name, ids(start.nodes)) == (3, "the-judge", ids(found))
    assert (end.nodes, list(end.tags)) == (chosen, ["rankr1"])
    assert [passage.id for passage in end.tags["rankr1"].passages][:3] == WANTED
    assert start.span_id == end.span_id is not None
    ((begun, ended),) = debug.get_event_pairs(CBEventType.RERANKING)
    payload = {EventPayload.QUERY_STR: QUERY, EventPayload.NODES: found}
    assert begun.payload == payload | {EventPayload.TOP_K: 3, EventPayload.MODEL_NAME: "the-judge"}
    assert ended.payload == {EventPayload.NODES: chosen}


@both_ways
def test_an_early_return_has_both_events_and_top_n_none_is_reported_as_a_number(
    way: str, found: Found, events: Events
) -> None:
    rerank, debug = made(top_n=None)
    assert WAYS[way](rerank, []) == []
    WAYS[way](rerank, found)
    assert [event.top_n for event in events.of(ReRankStartEvent)] == [0, len(found)]
    assert [(len(event.nodes), list(event.tags)) for event in events.of(ReRankEndEvent)] == [(0, []), (6, ["rankr1"])]
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 2


def gone(_: Any) -> Any:
    error = OSError("gone")
    error.event_added = True  # type: ignore[attr-defined]  # as LlamaIndex marks what another event has already shown
    raise error


@both_ways
@pytest.mark.parametrize("fails", ["model", "retriever", "on_ranking"])
def test_a_failure_ends_both_kinds_of_events_with_the_exception(
    way: str, fails: str, found: Found, events: Events, spans: SimpleSpanHandler
) -> None:
    both = LlamaIndex()
    broken: dict[str, Any] = {"model": {"script": gone}, "retriever": {"retrieve": gone}}
    rerank, debug = (
        both.component(**broken.get(fails, {"on_ranking": gone})),
        LlamaDebugHandler(print_trace_on_end=False),
    )
    rerank.callback_manager = CallbackManager([debug])
    with pytest.raises((BackendError, OSError)) as raised:
        WAYS[way](rerank, both.first)
    kinds = [kind for kind in in_order(events) if kind in (ReRankStartEvent, ExceptionEvent, ReRankEndEvent)]
    assert kinds == [ReRankStartEvent, ExceptionEvent, ReRankEndEvent]
    (end,) = events.of(ReRankEndEvent)
    assert (end.nodes, end.tags["exception"]) == ([], raised.value)
    ((_, ended),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert ended.payload == {EventPayload.EXCEPTION: raised.value}
    assert not spans.open_spans
    assert [span.id_.split("-")[0] for span in spans.dropped_spans] == [f"RankR1Rerank.{way}"]


@both_ways
def test_a_reranking_is_one_span_with_the_models_own_events_below_it(
    way: str, found: Found, events: Events, spans: SimpleSpanHandler
) -> None:
    WAYS[way](RankR1Rerank(llm=Served(backend=Scripted(traced))), found)
    parents = {span.id_: span.parent_id for span in spans.completed_spans}
    (span,) = [name for name in parents if name.split("-")[0] == f"RankR1Rerank.{way}"]
    assert not spans.open_spans
    asked = events.of(LLMChatStartEvent)
    assert asked
    assert {span} == {event.span_id if event.span_id == span else parents.get(event.span_id) for event in asked}


@both_ways
@pytest.mark.parametrize("kind", ["sync", "native"])
def test_the_retrieval_has_its_usual_events(way: str, kind: str, events: Events) -> None:
    both = LlamaIndex()
    WAYS[way](both.component(retrieve=both.retriever(kind)), both.first)
    (event,) = events.of(RetrievalEndEvent)
    assert sorted(ids(event.nodes)) == ["dracula", "stoker"]
