"""A retriever between two stages: what it finds is a node like the others, and each query has its own."""

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.postprocessor.rankr1 import RankR1Rerank
from llama_index.retrievers.bm25 import BM25Retriever
from pydantic import Field

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.conftest import PASSAGES, QUERY, WANTED, knows_best
from tests.integrations.with_llama_index.conftest import ids

Found = list[NodeWithScore]
Way = Callable[[RankR1Rerank, Found], Found]


class Titles(BaseRetriever):
    """Finds the nodes whose title a text names; keeps how and where it was asked. It has the sync method only."""

    def __init__(self, nodes: list[TextNode]) -> None:
        super().__init__()
        self.nodes = nodes
        self.asked: list[tuple[str, str, str, Any]] = []

    def _find(self, how: str, text: str) -> Found:
        self.asked.append((how, text, threading.current_thread().name, asyncio._get_running_loop()))
        return [NodeWithScore(node=node, score=0.5) for node in self.nodes if node.metadata["title"] in text]

    def _retrieve(self, query_bundle: QueryBundle) -> Found:
        return self._find("sync", query_bundle.query_str)


class Native(Titles):
    """One with an async method of its own."""

    async def _aretrieve(self, query_bundle: QueryBundle) -> Found:
        await asyncio.sleep(0)
        return self._find("async", query_bundle.query_str)


def sync(rerank: RankR1Rerank, nodes: Found) -> Found:
    return rerank.postprocess_nodes(nodes, query_str=QUERY)


def awaited(rerank: RankR1Rerank, nodes: Found) -> Found:
    return asyncio.run(rerank.apostprocess_nodes(nodes, query_str=QUERY))


def sync_in_a_running_loop(rerank: RankR1Rerank, nodes: Found) -> Found:
    async def cell() -> Found:
        return rerank.postprocess_nodes(nodes, query_str=QUERY)

    return asyncio.run(cell())


each_way = pytest.mark.parametrize("way", [sync, awaited, sync_in_a_running_loop])
both_ways = pytest.mark.parametrize("way", [sync, awaited])


def made(retrieve: Any, script: Any = knows_best, **settings: Any) -> RankR1Rerank:
    return RankR1Rerank(reranker=Reranker(Scripted(script), hops=2), retrieve=retrieve, **settings)


@pytest.fixture
def first(found: Found) -> Found:
    """What the first stage found: of what is wanted the first hop only."""
    return [one for one in found if one.node_id in ("whitby", "dracula", "shelley")]


@each_way
def test_a_real_retriever_brings_what_the_first_stage_missed(way: Way, first: Found, bm25: BM25Retriever) -> None:
    chosen = way(made(bm25, top_n=None), first)
    assert ids(chosen)[:3] == WANTED
    assert sorted(ids(chosen)) == sorted(PASSAGES)
    assert all(one.node.metadata["source"]["file"] == f"{one.node_id}.txt" for one in chosen)


def test_its_old_score_and_its_reasoning_are_kept_as_for_the_others(first: Found, nodes: list[TextNode]) -> None:
    rerank = made(Titles(nodes), top_n=2, keep_retrieval_score=True, include_reasoning=True)
    stoker = sync(rerank, first)[1].node
    assert stoker.metadata["retrieval_score"] == 0.5
    assert stoker.metadata["rankr1_reasoning"] == "stoker is what is wanted"
    assert "retrieval_score" not in stoker.get_content(MetadataMode.EMBED)
    assert "retrieval_score" not in next(node for node in nodes if node.node_id == "stoker").metadata


def test_a_pickle_and_a_copy_retrieve_the_same(first: Found, nodes: list[TextNode]) -> None:
    rerank = made(Titles(nodes), top_n=2)
    for other in (pickle.loads(pickle.dumps(rerank)), copy.deepcopy(rerank), rerank.model_copy()):
        assert sync(other, first) == sync(rerank, first)
    assert ids(sync(rerank.model_copy(update={"retrieve": lambda text: []}), first)) == ["dracula", "shelley"]
    with pytest.raises(TypeError, match=r"retrieve=.*<lambda>.* cannot be pickled"):
        pickle.dumps(made(lambda text: []))
    live = RankR1Rerank(hops=2, retrieve=print, model="m", base_url="http://localhost:1/v1")
    with pytest.raises(TypeError, match="retrieve= is a live object"):
        live.to_dict()


class Heard(BaseEventHandler):
    events: list[Any] = Field(default_factory=list)

    def handle(self, event: BaseEvent, **_: Any) -> None:
        self.events.append(event)


@both_ways
@pytest.mark.parametrize("kind", [Titles, Native])
def test_the_retrieval_is_heard_as_any_other(way: Way, kind: type[Titles], first: Found, nodes: list[TextNode]) -> None:
    root, heard = get_dispatcher(), Heard()
    root.add_event_handler(heard)
    try:
        way(made(kind(nodes)), first)
    finally:
        root.event_handlers.remove(heard)
    (event,) = [event for event in heard.events if isinstance(event, RetrievalEndEvent)]
    assert sorted(ids(event.nodes)) == ["dracula", "stoker"]
