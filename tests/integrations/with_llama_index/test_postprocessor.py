"""Nodes of LlamaIndex: their metadata, their scores, serialised settings, and LLMRerank for comparison."""

import asyncio
import copy
import json
import pickle
import re
import threading
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.ingestion import arun_transformations, run_transformations
from llama_index.core.postprocessor import LLMRerank
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore
from llama_index.postprocessor.rankr1 import RankR1Rerank
from llama_index.postprocessor.rankr1.base import HIDDEN
from llama_index.retrievers.bm25 import BM25Retriever

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.frameworks.fields import CHOSEN
from tests.integrations.both import LlamaIndex
from tests.integrations.conftest import QUERY, WANTED, knows_best
from tests.integrations.with_llama_index.conftest import Spoken, ids

Found = list[NodeWithScore]


def made(script: Any = knows_best, **settings: Any) -> RankR1Rerank:
    return RankR1Rerank(reranker=Reranker(Scripted(script)), **settings)


def test_a_node_comes_back_as_it_was(found: Found) -> None:
    assert BaseNodePostprocessor in RankR1Rerank.__mro__
    found.append(NodeWithScore(node=ImageNode(id_="image")))
    before = {node.node_id: node.node for node in found}
    chosen = made(top_n=None).postprocess_nodes(found, query_str=QUERY)
    assert ids(chosen)[:3] == WANTED
    for node in (one.node for one in chosen):
        assert type(node) is type(before[node.node_id])
        added = [node.metadata.pop(CHOSEN), *(getattr(node, name).pop() for name in HIDDEN)]
        assert added == [ids(chosen).index(node.node_id) + 1, CHOSEN, CHOSEN]
        assert node == before[node.node_id]


def test_reasoning_and_old_score_are_hidden_from_embedder_and_reader(found: Found) -> None:
    rerank = made(top_n=3, include_reasoning=True, keep_retrieval_score=True)
    chosen = rerank.postprocess_nodes(found, query_str=QUERY)
    assert chosen[0].node.metadata["rankr1_reasoning"] == "dracula is what is wanted"
    assert [one.node.metadata["retrieval_score"] for one in chosen] == [0.8, 0.9, 0.6]
    for one in chosen:
        for mode in (MetadataMode.EMBED, MetadataMode.LLM):
            assert "rankr1_reasoning" not in one.node.get_content(mode)
            assert "retrieval_score" not in one.node.get_content(mode)
            assert one.node.get_content(mode).startswith("title: ")
    rerank = made(top_n=None, keep_retrieval_score=True)
    scores = {one.node_id: one.node.metadata["retrieval_score"] for one in rerank.postprocess_nodes(found, None, QUERY)}
    assert scores == {one.node_id: one.score for one in found}
    assert scores["whitby"] is None
    both = LlamaIndex()
    rerank = both.component(retrieve=both.titled, top_n=2, keep_retrieval_score=True, include_reasoning=True)
    stoker = both.sync(rerank, both.first)[1].node
    assert stoker.metadata["retrieval_score"] == 0.5
    assert stoker.metadata["rankr1_reasoning"] == "stoker is what is wanted"
    assert "retrieval_score" not in stoker.get_content(MetadataMode.EMBED)
    assert all("retrieval_score" not in one.node.metadata for one in both.items)


EMBED = {"metadata_mode": MetadataMode.EMBED}
SOURCE = "source: {'file': 'whitby.txt', 'page': 1}\n\nWhitby is a seaside town"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "Whitby Whitby is a seaside town"),
        ({"title_key": None}, "Whitby is a seaside town"),
        ({"metadata_keys": ["source"]}, f"Whitby {SOURCE}"),
        (EMBED, f"Whitby {SOURCE}"),
        ({"metadata_mode": "all"}, f"Whitby {SOURCE}"),
        (EMBED | {"title_key": None}, f"title: Whitby\n{SOURCE}"),
        (EMBED | {"title_key": "name"}, f"title: Whitby\n{SOURCE}"),
        (EMBED | {"metadata_keys": ["source"]}, f"Whitby {SOURCE}"),
        (EMBED | {"metadata_keys": ["title"], "title_key": None}, f"title: Whitby\n\n{SOURCE}"),
    ],
)
def test_the_prompt_has_the_title_once_and_the_metadata_that_is_wanted(
    found: Found, settings: dict[str, Any], line: str
) -> None:
    seen: list[str] = []
    rerank = made(lambda messages: seen.append(messages[-1]["content"]) or "<answer>[1]</answer>", **settings)
    rerank.postprocess_nodes(found, query_str=QUERY)
    assert f"[3] {line}" in seen[0]


def test_a_query_may_be_a_string_and_other_calls_say_what_they_need(found: Found, bm25: BM25Retriever) -> None:
    engine = RetrieverQueryEngine.from_args(bm25, llm=Spoken(str), node_postprocessors=[made(top_n=3)])
    assert ids(engine.retrieve(QUERY)) == ids(asyncio.run(engine.aretrieve(QUERY))) == WANTED
    with pytest.raises(TypeError, match="which an IngestionPipeline does not have: use it in"):
        run_transformations([one.node for one in found], [made()])
    with pytest.raises(TypeError, match="which an IngestionPipeline does not have: use it in"):
        asyncio.run(arun_transformations([one.node for one in found], [made()]))
    with pytest.raises(TypeError, match=r"or call postprocess_nodes\(nodes, query_str=…\)"):
        made()(found, QUERY)
    with pytest.raises(TypeError, match="item 0 is a TextNode, not a NodeWithScore"):
        made().postprocess_nodes([one.node for one in found], query_str=QUERY)
    for nodes, query in (([], None), (found, None), (found, 5), (found, {"query_str": QUERY})):
        with pytest.raises(ValueError, match=re.escape(f"needs a query (got {query!r}): use query_str=")):
            made().postprocess_nodes(nodes, query)
        with pytest.raises(ValueError, match="needs a query"):
            asyncio.run(made().apostprocess_nodes(nodes, query))


def test_a_pickle_leaves_the_callback_manager_out() -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    handler.lock = threading.Lock()  # cannot be pickled, like the connections of most handlers
    assert pickle.loads(pickle.dumps(made(callback_manager=CallbackManager([handler])))).callback_manager.handlers == []


def test_settings_survive_a_round_trip_through_json_and_live_objects_are_refused() -> None:
    settings: dict[str, Any] = {"model": "ielabgroup/Rank-R1-7B-v0.1", "base_url": "http://localhost:1/v1", "votes": 3}
    rerank = RankR1Rerank(top_n=7, metadata_mode=MetadataMode.LLM, **settings)
    text = rerank.to_json()
    again = RankR1Rerank.from_json(text)
    assert json.loads(text)["class_name"] == "RankR1Rerank"
    assert (again.top_n, again.metadata_mode, again.ranker.votes) == (7, MetadataMode.LLM, 3)
    assert again.ranker.plan.backend.identity == rerank.ranker.plan.backend.identity
    assert again.ranker.plan.format == rerank.ranker.plan.format
    for live in ({"reranker": Reranker(Scripted(knows_best))}, {"on_ranking": print}, {"retrieve": print, "hops": 2}):
        with pytest.raises(TypeError, match=f"{next(iter(live))}= is a live object"):
            RankR1Rerank(**live).to_json()


@pytest.mark.parametrize("text", ["What an interesting question! All of these passages have their merits.", ""])
def test_a_chatty_or_empty_answer_loses_no_node_where_llm_rerank_loses_them_all(found: Found, text: str) -> None:
    llm = Spoken(lambda prompt: text)
    assert len(RankR1Rerank(llm=llm).postprocess_nodes(found, query_str=QUERY)) == 5
    try:
        left = LLMRerank(llm=llm, top_n=5).postprocess_nodes(copy.deepcopy(found), query_str=QUERY)
    except (IndexError, ValueError):  # as it does for some answers
        left = []
    assert left == []
