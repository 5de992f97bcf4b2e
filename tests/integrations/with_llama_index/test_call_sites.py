"""The places where LlamaIndex takes a node postprocessor: query engines, chat engines, other postprocessors."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace as Parts
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
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

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.conftest import PASSAGES, QUERY, WANTED, knows_best
from tests.integrations.with_llama_index.conftest import Embedder, Spoken, ids

SUB_QUESTIONS = '```json\n{"items": [{"sub_question": "Who wrote Dracula?", "tool_name": "books"}]}\n```'


@pytest.fixture
def parts(bm25: BM25Retriever, index: VectorStoreIndex, embedder: Embedder) -> Parts:
    """Retrievers, the reranker, and the pipeline's model: it reads, condenses, makes sub-questions."""
    prompts: list[str] = []

    def read(prompt: str) -> str:
        prompts.append(prompt)
        return SUB_QUESTIONS if "sub_question" in prompt else "In Clontarf [1]."

    settings: dict[str, Any] = {"top_n": 3, "include_reasoning": True, "keep_retrieval_score": True}
    rerank = RankR1Rerank(reranker=Reranker(Scripted(knows_best)), **settings)
    return Parts(bm25=bm25, index=index, embedder=embedder, prompts=prompts, llm=Spoken(read), rerank=rerank)


def over_bm25(parts: Parts, **settings: Any) -> RetrieverQueryEngine:
    settings = {"node_postprocessors": [parts.rerank]} | settings
    return RetrieverQueryEngine.from_args(parts.bm25, llm=parts.llm, **settings)


def over_vectors(parts: Parts) -> Any:
    return parts.index.as_query_engine(llm=parts.llm, similarity_top_k=6, node_postprocessors=[parts.rerank])


def citing(parts: Parts) -> CitationQueryEngine:
    settings = {"retriever": parts.bm25, "node_postprocessors": [parts.rerank]}
    return CitationQueryEngine.from_args(VectorStoreIndex([], embed_model=Embedder()), llm=parts.llm, **settings)


def asking_sub_questions(parts: Parts) -> SubQuestionQueryEngine:
    return SubQuestionQueryEngine.from_defaults(
        [QueryEngineTool.from_defaults(over_bm25(parts), name="books", description="books and their authors")],
        llm=parts.llm,
        question_gen=LLMQuestionGenerator.from_defaults(llm=parts.llm),
        response_synthesizer=get_response_synthesizer(llm=parts.llm),
    )


def transforming(parts: Parts) -> TransformQueryEngine:
    return TransformQueryEngine(over_bm25(parts), HyDEQueryTransform(llm=parts.llm, include_original=True))


def check(response: Any, prompts: list[str]) -> None:
    """The wanted nodes and the reader have the new order, and no prompt has the added metadata."""
    contents = [one.node.get_content() for one in response.source_nodes]
    assert [name for one in contents for name, (_, text) in PASSAGES.items() if text in one] == WANTED
    places = [[prompt.find(PASSAGES[name][1]) for name in WANTED] for prompt in prompts]
    assert any(-1 not in one and one == sorted(one) for one in places)
    for added in ("rankr1_reasoning", "is what is wanted", "retrieval_score"):
        assert not [prompt for prompt in prompts if added in prompt]


async def notebook(engine: Any) -> Any:
    return engine.query(QUERY)


WAYS: dict[str, Callable[[Any], Any]] = {
    "sync": lambda engine: engine.query(QUERY),
    "async": lambda engine: asyncio.run(engine.aquery(QUERY)),
    "sync in a running loop": lambda engine: asyncio.run(notebook(engine)),
}


@pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("make", [over_bm25, over_vectors, citing, asking_sub_questions, transforming])
def test_a_query_engine_reads_in_the_new_order(parts: Parts, make: Any, ask: Any) -> None:
    response = ask(make(parts))
    assert str(response) == "In Clontarf [1]."
    check(response, parts.prompts)


def test_the_reasoning_is_in_the_metadata_which_the_embedding_model_never_sees(parts: Parts) -> None:
    engine = over_vectors(parts)
    first, again = engine.query(QUERY), engine.query(QUERY)
    assert ids(first.source_nodes) == ids(again.source_nodes) == WANTED
    assert first.source_nodes[0].node.metadata["rankr1_reasoning"] == "dracula is what is wanted"
    parts.index.insert_nodes([one.node for one in first.source_nodes])
    seen = parts.embedder.seen
    assert len(seen) == 6 + 2 + 3
    assert not [text for text in seen if "rankr1" in text or "wanted" in text or "retrieval_score" in text]


@pytest.mark.parametrize("kind", [ContextChatEngine, CondensePlusContextChatEngine])
def test_a_chat_engine_reads_in_the_new_order(parts: Parts, kind: Any) -> None:
    memory = ChatMemoryBuffer.from_defaults(llm=parts.llm)
    engine = kind.from_defaults(retriever=parts.bm25, llm=parts.llm, node_postprocessors=[parts.rerank], memory=memory)

    async def cell() -> Any:
        return engine.chat(QUERY)

    for response in (engine.chat(QUERY), asyncio.run(engine.achat(QUERY)), engine.stream_chat(QUERY)):
        check(response, parts.prompts)
    check(asyncio.run(cell()), parts.prompts)


@pytest.mark.parametrize(("cutoff", "names"), [(-1, WANTED), (1e9, [])])
def test_other_postprocessors_may_precede_and_follow(parts: Parts, cutoff: float, names: list[str]) -> None:
    chain = [SimilarityPostprocessor(similarity_cutoff=cutoff), parts.rerank, LongContextReorder()]
    engine = over_bm25(parts, node_postprocessors=chain)
    assert sorted(ids(engine.query(QUERY).source_nodes)) == sorted(names)
