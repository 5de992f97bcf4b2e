"""The places where LlamaIndex takes a node postprocessor: query engines, chat engines, other postprocessors."""

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
from llama_index.core.postprocessor import LongContextReorder, SimilarityPostprocessor
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
from pydantic import Field

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.conftest import QUERY, WANTED, knows_best
from tests.integrations.with_llama_index.conftest import Embedder, Spoken, ids

SUB_QUESTIONS = '```json\n{"items": [{"sub_question": "Who wrote Dracula?", "tool_name": "books"}]}\n```'


class Reader(Spoken):
    """The pipeline's model: reads, condenses, makes sub-questions; records the prompts."""

    prompts: list[str] = Field(default_factory=list)

    def __init__(self) -> None:
        super().__init__(self.read)

    def read(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return SUB_QUESTIONS if "sub_question" in prompt else "In Clontarf [1]."


@pytest.fixture
def llm() -> Reader:
    return Reader()


@pytest.fixture
def rerank() -> RankR1Rerank:
    reranker = Reranker(Scripted(knows_best))
    return RankR1Rerank(reranker=reranker, top_n=3, include_reasoning=True, keep_retrieval_score=True)


@pytest.fixture
def engine(bm25: BM25Retriever, llm: Reader, rerank: RankR1Rerank) -> RetrieverQueryEngine:
    return RetrieverQueryEngine.from_args(bm25, llm=llm, node_postprocessors=[rerank])


def read_in_order(llm: Reader) -> bool:
    """Whether the last prompt has the wanted passages in their order, and none of the added metadata."""
    prompt = llm.prompts[-1]
    places = [prompt.find(text) for text in ("Dracula is an 1897", "Bram Stoker was born", "Dublin is the capital")]
    assert "rankr1_reasoning" not in prompt
    assert "is what is wanted" not in prompt
    assert "retrieval_score" not in prompt
    return -1 not in places and places == sorted(places)


async def notebook(engine: Any, query: str) -> Any:
    return engine.query(query)


WAYS: dict[str, Callable[[Any, str], Any]] = {
    "sync": lambda engine, query: engine.query(query),
    "async": lambda engine, query: asyncio.run(engine.aquery(query)),
    "sync in a running loop": lambda engine, query: asyncio.run(notebook(engine, query)),
}
each_way = pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS)


@each_way
def test_a_query_engine_over_bm25(engine: RetrieverQueryEngine, llm: Reader, ask: Any) -> None:
    response = ask(engine, QUERY)
    assert isinstance(response, Response)
    assert str(response) == "In Clontarf [1]."
    assert ids(response.source_nodes) == WANTED
    assert response.source_nodes[0].node.metadata["rankr1_reasoning"] == "dracula is what is wanted"
    assert read_in_order(llm)


@each_way
def test_the_embedding_model_of_a_vector_index_never_sees_the_added_metadata(
    index: VectorStoreIndex, llm: Reader, rerank: RankR1Rerank, embedder: Embedder, ask: Any
) -> None:
    engine = index.as_query_engine(llm=llm, similarity_top_k=6, node_postprocessors=[rerank])
    first, again = ask(engine, QUERY), ask(engine, QUERY)
    assert ids(first.source_nodes) == ids(again.source_nodes) == WANTED
    index.insert_nodes([one.node for one in first.source_nodes])
    assert len(embedder.seen) == 6 + 2 + 3
    assert not [text for text in embedder.seen if "rankr1" in text or "wanted" in text or "retrieval_score" in text]


@each_way
def test_a_citation_query_engine(bm25: BM25Retriever, llm: Reader, rerank: RankR1Rerank, ask: Any) -> None:
    engine = CitationQueryEngine.from_args(
        VectorStoreIndex([], embed_model=Embedder()), llm=llm, retriever=bm25, node_postprocessors=[rerank]
    )
    response = ask(engine, QUERY)
    sources = [one.node.get_content().split(":")[0] for one in response.source_nodes]
    assert sources == ["Source 1", "Source 2", "Source 3"]
    assert read_in_order(llm)


@each_way
def test_a_sub_question_query_engine(engine: RetrieverQueryEngine, llm: Reader, ask: Any) -> None:
    tool = QueryEngineTool.from_defaults(engine, name="books", description="books and their authors")
    whole = SubQuestionQueryEngine.from_defaults(
        [tool],
        llm=llm,
        question_gen=LLMQuestionGenerator.from_defaults(llm=llm),
        response_synthesizer=get_response_synthesizer(llm=llm),
    )
    response = ask(whole, QUERY)
    assert ids(response.source_nodes)[1:] == WANTED
    assert len(llm.prompts) == 3


def test_a_transformed_query_is_reranked_by_its_own_words(engine: RetrieverQueryEngine, llm: Reader) -> None:
    hyde = TransformQueryEngine(engine, HyDEQueryTransform(llm=llm, include_original=True))
    assert ids(hyde.query(QUERY).source_nodes) == WANTED


@pytest.mark.parametrize("kind", [ContextChatEngine, CondensePlusContextChatEngine])
def test_a_chat_engine(bm25: BM25Retriever, llm: Reader, rerank: RankR1Rerank, kind: Any) -> None:
    memory = ChatMemoryBuffer.from_defaults(llm=llm)
    engine = kind.from_defaults(retriever=bm25, llm=llm, node_postprocessors=[rerank], memory=memory)
    assert ids(engine.chat(QUERY).source_nodes) == WANTED
    assert read_in_order(llm)
    assert ids(asyncio.run(engine.achat(QUERY)).source_nodes) == WANTED
    assert ids(engine.stream_chat(QUERY).source_nodes) == WANTED

    async def cell() -> None:
        assert ids(engine.chat(QUERY).source_nodes) == WANTED

    asyncio.run(cell())


def test_one_engine_serves_several_threads(engine: RetrieverQueryEngine) -> None:
    with ThreadPoolExecutor(6) as pool:
        for response in pool.map(lambda _: engine.query(QUERY), range(12)):
            assert ids(response.source_nodes) == WANTED


@pytest.mark.parametrize(("cutoff", "names"), [(-1, WANTED), (1e9, [])])
def test_other_postprocessors_may_precede_and_follow(
    bm25: BM25Retriever, llm: Reader, rerank: RankR1Rerank, cutoff: float, names: list[str]
) -> None:
    chain = [SimilarityPostprocessor(similarity_cutoff=cutoff), rerank, LongContextReorder()]
    engine = RetrieverQueryEngine.from_args(bm25, llm=llm, node_postprocessors=chain)
    assert sorted(ids(engine.query(QUERY).source_nodes)) == sorted(names)
