"""Both kinds of events: the dispatcher's and the legacy callbacks, also for no nodes and for a failure."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.llm import LLMChatStartEvent
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.schema import NodeWithScore
from llama_index.postprocessor.rankr1 import RankR1Rerank

from rankr1_rag import BackendError, Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.both import LlamaIndex
from tests.integrations.conftest import QUERY, WANTED, knows_best
from tests.integrations.with_llama_index.conftest import Events, Served, ids

Found = list[NodeWithScore]


@pytest.fixture
def spans() -> Iterator[SimpleSpanHandler]:
    root, handler = get_dispatcher(), SimpleSpanHandler()
    root.add_span_handler(handler)
    yield handler
    root.span_handlers.remove(handler)


WAYS: dict[str, Callable[[RankR1Rerank, Found], Found]] = {
    "_postprocess_nodes": lambda rerank, found: rerank.postprocess_nodes(found, query_str=QUERY),
    "_apostprocess_nodes": lambda rerank, found: asyncio.run(rerank.apostprocess_nodes(found, query_str=QUERY)),
}
both_ways = pytest.mark.parametrize("way", WAYS)


def made(script: Any = knows_best, **settings: Any) -> tuple[RankR1Rerank, LlamaDebugHandler]:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    reranker = Reranker(Scripted(script, model="the-judge"))
    return RankR1Rerank(reranker=reranker, callback_manager=CallbackManager([debug]), **settings), debug


@both_ways
def test_start_and_end_have_query_nodes_model_and_the_whole_ranking(way: str, found: Found, events: Events) -> None:
    rerank, debug = made(top_n=3)
    chosen = WAYS[way](rerank, found)
    (start,), (end,) = events.of(ReRankStartEvent), events.of(ReRankEndEvent)
    assert start.query.query_str == QUERY
    assert (start.top_n, start.model_name, ids(start.nodes)) == (3, "the-judge", ids(found))
    assert end.nodes == chosen
    ranking = end.tags["rankr1"]
    assert isinstance(ranking, Ranking)
    assert [passage.id for passage in ranking.passages][:3] == WANTED
    assert start.span_id == end.span_id is not None
    ((begun, ended),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert begun.payload[EventPayload.QUERY_STR] == QUERY
    assert begun.payload[EventPayload.NODES] == found
    assert (begun.payload[EventPayload.TOP_K], begun.payload[EventPayload.MODEL_NAME]) == (3, "the-judge")
    assert ended.payload == {EventPayload.NODES: chosen}


@both_ways
def test_an_early_return_has_both_events_and_top_n_none_is_reported_as_a_number(
    way: str, found: Found, events: Events
) -> None:
    rerank, debug = made(top_n=None)
    assert WAYS[way](rerank, []) == []
    WAYS[way](rerank, found)
    assert [event.top_n for event in events.of(ReRankStartEvent)] == [0, len(found)]
    assert [len(event.nodes) for event in events.of(ReRankEndEvent)] == [0, len(found)]
    assert "rankr1" not in events.of(ReRankEndEvent)[0].tags
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 2


@both_ways
def test_a_failure_has_both_events_and_carries_the_exception(way: str, found: Found, events: Events) -> None:
    def fails(messages: Any) -> str:
        raise OSError("gone")

    rerank, debug = made(fails)
    with pytest.raises(BackendError):
        WAYS[way](rerank, found)
    assert len(events.of(ReRankStartEvent)) == 1
    assert [event.nodes for event in events.of(ReRankEndEvent)] == [[]]
    ((_, ended),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert isinstance(ended.payload[EventPayload.EXCEPTION], BackendError)


@both_ways
def test_a_reranking_is_one_span_with_the_models_own_events_below_it(
    way: str, found: Found, events: Events, spans: SimpleSpanHandler
) -> None:
    def answer(messages: Any) -> str:
        get_dispatcher().event(LLMChatStartEvent(messages=[], additional_kwargs={}, model_dict={}))
        return knows_best(messages)

    WAYS[way](RankR1Rerank(llm=Served(backend=Scripted(answer))), found)
    parents = {span.id_: span.parent_id for span in spans.completed_spans}
    (span,) = [name for name in parents if name.split("-")[0] == f"RankR1Rerank.{way}"]
    assert not spans.open_spans
    for event in events.of(LLMChatStartEvent):
        assert event.span_id == span or parents.get(event.span_id) == span
    assert events.of(LLMChatStartEvent)


@both_ways
@pytest.mark.parametrize("kind", ["sync", "native"])
def test_the_retrieval_has_its_usual_events(way: str, kind: str, events: Events) -> None:
    both = LlamaIndex()
    WAYS[way](both.component(retrieve=both.retriever(kind)), both.first)
    (event,) = events.of(RetrievalEndEvent)
    assert sorted(ids(event.nodes)) == ["dracula", "stoker"]
