"""`retrieve=` with LlamaIndex's own retrievers: metadata of found nodes, and the events of the retrieval."""

import pytest
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent
from llama_index.core.schema import MetadataMode, NodeWithScore
from llama_index.retrievers.bm25 import BM25Retriever

from tests.integrations.both import LlamaIndex
from tests.integrations.conftest import PASSAGES, WANTED
from tests.integrations.with_llama_index.conftest import Events, ids

each_way = pytest.mark.parametrize("way", ["sync", "async", "sync in a running loop"])


@pytest.fixture
def llama_index() -> LlamaIndex:
    return LlamaIndex()


@each_way
def test_a_real_retriever_brings_the_passages_that_the_first_stage_missed(
    llama_index: LlamaIndex, way: str, found: list[NodeWithScore], bm25: BM25Retriever
) -> None:
    first = [one for one in found if one.node_id in ids(llama_index.first)]
    chosen = llama_index.rerank(way, llama_index.component(retrieve=bm25, top_n=None), first)
    assert ids(chosen)[:3] == WANTED
    assert sorted(ids(chosen)) == sorted(PASSAGES)
    assert next(one for one in chosen if one.node_id == "stoker").node.metadata["source"]["file"] == "stoker.txt"


def test_a_found_node_keeps_its_old_score_and_its_reasoning(llama_index: LlamaIndex) -> None:
    settings = {"keep_retrieval_score": True, "include_reasoning": True}
    component = llama_index.component(retrieve=llama_index.titled, top_n=2, **settings)
    stoker = llama_index.sync(component, llama_index.first)[1].node
    assert stoker.metadata["retrieval_score"] == 0.5
    assert stoker.metadata["rankr1_reasoning"] == "stoker is what is wanted"
    assert "retrieval_score" not in stoker.get_content(MetadataMode.EMBED)
    assert all("retrieval_score" not in one.node.metadata for one in llama_index.items)


@each_way
@pytest.mark.parametrize("kind", ["sync", "native"])
def test_the_retrieval_has_its_usual_events(llama_index: LlamaIndex, way: str, kind: str, events: Events) -> None:
    llama_index.rerank(way, llama_index.component(retrieve=llama_index.retriever(kind)), llama_index.first)
    (event,) = events.of(RetrievalEndEvent)
    assert sorted(ids(event.nodes)) == ["dracula", "stoker"]
