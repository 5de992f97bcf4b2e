"""Where LangChain puts a compressor: compression retrievers, pipelines, ensembles; sync, async and from threads."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_classic.retrievers import EnsembleRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_rankr1 import RankR1Rerank
from langchain_text_splitters import RecursiveCharacterTextSplitter

from tests.integrations.both import LangChain
from tests.integrations.conftest import PASSAGES, QUERY, WANTED
from tests.integrations.with_langchain.parts import (
    EmbeddingsRedundantFilter,
    Hashed,
    around,
    bm25,
    documents,
    ids,
    vectors,
)


async def notebook(retriever: Any) -> Any:
    return retriever.invoke(QUERY)


Way = Callable[[Any], list[Document]]
WAYS: dict[str, Way] = {
    "sync": lambda retriever: retriever.invoke(QUERY),
    "async": lambda retriever: asyncio.run(retriever.ainvoke(QUERY)),
    "sync in a running loop": lambda retriever: asyncio.run(notebook(retriever)),
    "batch": lambda retriever: retriever.batch([QUERY, QUERY])[1],
}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def test_one_compression_retriever_serves_every_way_in_turn_and_threads_with_loops_of_their_own(
    compressor: RankR1Rerank,
) -> None:
    retriever = around(compressor)
    assert ids(bm25().invoke(QUERY))[:3] != WANTED
    for way in (*WAYS.values(), WAYS["async"], WAYS["sync"]):
        assert ids(way(retriever)) == WANTED

    async def several() -> list[list[Document]]:
        return await asyncio.gather(*(retriever.ainvoke(QUERY) for _ in range(4)))

    with ThreadPoolExecutor(4) as pool:
        results = [each for four in pool.map(lambda _: asyncio.run(several()), range(4)) for each in four]
    assert [ids(each) for each in results] == [WANTED] * 16


@each_way
def test_a_pipeline_may_drop_redundant_documents_before(way: Way, compressor: RankR1Rerank) -> None:
    twice = [each for document in documents() for each in (document, document.model_copy(update={"id": "again"}))]
    pipeline = DocumentCompressorPipeline(transformers=[EmbeddingsRedundantFilter(embeddings=Hashed()), compressor])
    found = way(around(pipeline, bm25(twice)))
    assert [document.metadata["title"] for document in found] == [PASSAGES[key][0] for key in WANTED]


@each_way
def test_a_pipeline_may_split_texts_before(way: Way, compressor: RankR1Rerank) -> None:
    texts = [text for _, text in PASSAGES.values()]
    splitter = RecursiveCharacterTextSplitter(separators=["\n\n"], chunk_size=max(map(len, texts)), chunk_overlap=0)
    pipeline = DocumentCompressorPipeline(transformers=[splitter, compressor])
    found = way(around(pipeline, bm25([Document("\n\n".join(texts), metadata={"source": "all"})])))
    expected = [(PASSAGES[key][1], "all") for key in WANTED]
    assert [(document.page_content, document.metadata["source"]) for document in found] == expected


@each_way
def test_a_pipeline_may_continue_after_it(way: Way, compressor: RankR1Rerank) -> None:
    splitter = RecursiveCharacterTextSplitter(chunk_size=40, chunk_overlap=0)
    found = way(around(DocumentCompressorPipeline(transformers=[compressor, splitter])))
    scores = [document.metadata["relevance_score"] for document in found]
    assert scores == sorted(scores, reverse=True)
    assert list(dict.fromkeys(document.metadata["title"] for document in found)) == [PASSAGES[w][0] for w in WANTED]


@each_way
def test_an_ensemble_a_vector_store_or_another_compressor_may_be_its_first_stage(
    way: Way, compressor: RankR1Rerank
) -> None:
    ensemble = EnsembleRetriever(retrievers=[bm25(), vectors(4)], weights=[0.5, 0.5])
    wide = around(compressor.model_copy(update={"top_n": 5}))
    assert len(wide.invoke(QUERY)) == 5
    for base, best in ((ensemble, WANTED), (wide, WANTED), (vectors(1), ids(vectors(1).invoke(QUERY)))):
        assert ids(way(around(compressor, base))) == best


def test_retrieve_takes_any_runnable_and_a_compression_retriever_may_wrap_it() -> None:
    both = LangChain()
    chain = RunnableLambda(lambda text: text.upper()) | RunnableLambda(str.title) | both.retriever("sync")
    retriever = around(both.component(retrieve=chain, top_n=2), RunnableLambda(lambda query: both.first))
    for way in WAYS.values():
        assert ids(way(retriever)) == WANTED[:2]
