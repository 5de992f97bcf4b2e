"""Everywhere that LlamaIndex takes a node postprocessor: engines, chat engines, sync, async, in a running loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.response.schema import Response
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import (
    CitationQueryEngine,
    RetrieverQueryEngine,
    SubQuestionQueryEngine,
    TransformQueryEngine,
)
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.tools import QueryEngineTool
from llama_index.postprocessor.rankr1 import RankR1Rerank
from llama_index.retrievers.bm25 import BM25Retriever

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.conftest import QUERY, WANTED, knows_best
from tests.integrations.with_llama_index.conftest import Embedder, Spoken, ids

SUB_QUESTIONS = '```json\n{"items": [{"sub_question": "Who wrote Dracula?", "tool_name": "books"}]}\n```'


class Reader:
    """The pipeline's model: reads, condenses, makes sub-questions; keeps the prompts."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return SUB_QUESTIONS if "sub_question" in prompt else "In Clontarf [1]."


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def llm(reader: Reader) -> Spoken:
    return Spoken(reader)


@pytest.fixture
def rerank() -> RankR1Rerank:
    return RankR1Rerank(
        reranker=Reranker(Scripted(knows_best)), top_n=3, include_reasoning=True, keep_retrieval_score=True
    )


def read_in_order(reader: Reader) -> bool:
    """Whether the last prompt holds what is wanted in that order, and nothing that we added."""
    prompt = reader.prompts[-1]
    places = [prompt.find(text) for text in ("Dracula is an 1897", "Bram Stoker was born", "Dublin is the capital")]
    assert "rankr1_reasoning" not in prompt
    assert "is what is wanted" not in prompt
    assert "retrieval_score" not in prompt
    return -1 not in places and places == sorted(places)


Way = Callable[[Any, str], Any]
WAYS = {
    "sync": lambda engine, query: engine.query(query),
    "async": lambda engine, query: asyncio.run(engine.aquery(query)),
    "sync in a running loop": lambda engine, query: asyncio.run(_in_a_loop(engine, query)),
}


async def _in_a_loop(engine: Any, query: str) -> Any:
    return engine.query(query)


@pytest.fixture(params=WAYS.values(), ids=WAYS.keys())
def ask(request: pytest.FixtureRequest) -> Way:
    way: Way = request.param
    return way


def test_a_query_engine_over_bm25(
    bm25: BM25Retriever, llm: Spoken, rerank: RankR1Rerank, reader: Reader, ask: Way
) -> None:
    engine = RetrieverQueryEngine.from_args(bm25, llm=llm, node_postprocessors=[rerank])
    response = ask(engine, QUERY)
    assert isinstance(response, Response)
    assert str(response) == "In Clontarf [1]."
    assert ids(response.source_nodes) == WANTED
    assert response.source_nodes[0].node.metadata["rankr1_reasoning"] == "dracula is what is wanted"
    assert read_in_order(reader)


def test_a_vector_index_whose_embedding_model_never_sees_what_we_added(
    index: VectorStoreIndex, llm: Spoken, rerank: RankR1Rerank, embedder: Embedder, ask: Way
) -> None:
    engine = index.as_query_engine(llm=llm, similarity_top_k=6, node_postprocessors=[rerank])
    first, again = ask(engine, QUERY), ask(engine, QUERY)
    assert ids(first.source_nodes) == ids(again.source_nodes) == WANTED
    index.insert_nodes([one.node for one in first.source_nodes])
    assert len(embedder.seen) == 6 + 2 + 3
    assert not [text for text in embedder.seen if "rankr1" in text or "wanted" in text or "retrieval_score" in text]


def test_a_citation_query_engine(
    bm25: BM25Retriever, llm: Spoken, rerank: RankR1Rerank, reader: Reader, ask: Way
) -> None:
    engine = CitationQueryEngine.from_args(
        VectorStoreIndex([], embed_model=Embedder()), llm=llm, retriever=bm25, node_postprocessors=[rerank]
    )
    response = ask(engine, QUERY)
    assert [one.node.get_content().split(":")[0] for one in response.source_nodes] == [
        "Source 1",
        "Source 2",
        "Source 3",
    ]
    assert read_in_order(reader)


def test_a_sub_question_query_engine(
    bm25: BM25Retriever, llm: Spoken, rerank: RankR1Rerank, reader: Reader, ask: Way
) -> None:
    engine = RetrieverQueryEngine.from_args(bm25, llm=llm, node_postprocessors=[rerank])
    tool = QueryEngineTool.from_defaults(engine, name="books", description="books and their authors")
    whole = SubQuestionQueryEngine.from_defaults(
        [tool],
        llm=llm,
        question_gen=LLMQuestionGenerator.from_defaults(llm=llm),
        response_synthesizer=get_response_synthesizer(llm=llm),
    )
    response = ask(whole, QUERY)
    assert ids(response.source_nodes)[1:] == WANTED
    assert len(reader.prompts) == 3


def test_a_query_that_was_transformed_is_reranked_by_its_own_words(
    bm25: BM25Retriever, llm: Spoken, rerank: RankR1Rerank
) -> None:
    engine = RetrieverQueryEngine.from_args(bm25, llm=llm, node_postprocessors=[rerank])
    hyde = TransformQueryEngine(engine, HyDEQueryTransform(llm=llm, include_original=True))
    assert ids(hyde.query(QUERY).source_nodes) == WANTED


@pytest.mark.parametrize("kind", [ContextChatEngine, CondensePlusContextChatEngine])
def test_a_chat_engine(bm25: BM25Retriever, llm: Spoken, rerank: RankR1Rerank, reader: Reader, kind: Any) -> None:
    memory = ChatMemoryBuffer.from_defaults(llm=llm)
    engine = kind.from_defaults(retriever=bm25, llm=llm, node_postprocessors=[rerank], memory=memory)
    assert ids(engine.chat(QUERY).source_nodes) == WANTED
    assert read_in_order(reader)
    assert ids(asyncio.run(engine.achat(QUERY)).source_nodes) == WANTED
    assert ids(engine.stream_chat(QUERY).source_nodes) == WANTED

    async def cell() -> None:
        assert ids(engine.chat(QUERY).source_nodes) == WANTED

    asyncio.run(cell())


def test_one_engine_serves_several_threads(bm25: BM25Retriever, llm: Spoken, rerank: RankR1Rerank) -> None:
    engine = RetrieverQueryEngine.from_args(bm25, llm=llm, node_postprocessors=[rerank])
    with ThreadPoolExecutor(6) as pool:
        for response in pool.map(lambda _: engine.query(QUERY), range(24)):
            assert ids(response.source_nodes) == WANTED


def test_behind_another_postprocessor_and_before_one(bm25: BM25Retriever, llm: Spoken, rerank: RankR1Rerank) -> None:
    from llama_index.core.postprocessor import LongContextReorder, SimilarityPostprocessor

    engine = RetrieverQueryEngine.from_args(
        bm25,
        llm=llm,
        node_postprocessors=[SimilarityPostprocessor(similarity_cutoff=-1), rerank, LongContextReorder()],
    )
    assert sorted(ids(engine.query(QUERY).source_nodes)) == sorted(WANTED)
    nothing = RetrieverQueryEngine.from_args(
        bm25, llm=llm, node_postprocessors=[SimilarityPostprocessor(similarity_cutoff=1e9), rerank]
    )
    assert nothing.query(QUERY).source_nodes == []
