"""`retrieve=` with LangChain's own retrievers and runnables, and its runs in traces."""

import asyncio
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

from tests.integrations.both import LangChain
from tests.integrations.conftest import PASSAGES, QUERY, WANTED
from tests.integrations.with_langchain.parts import BM25Retriever, Hashed, Traces, ids

each_way = pytest.mark.parametrize("way", ["sync", "async", "sync in a running loop"])


@pytest.fixture
def langchain() -> LangChain:
    return LangChain()


@each_way
def test_real_retrievers_bring_the_passages_that_the_first_stage_missed(
    langchain: LangChain, way: str, first_stage: BM25Retriever
) -> None:
    store = InMemoryVectorStore(Hashed())
    store.add_documents(langchain.items)
    for retriever in (first_stage, store.as_retriever(search_kwargs={"k": 6})):
        chosen = langchain.rerank(way, langchain.component(retrieve=retriever, top_n=None), langchain.first)
        assert ids(chosen)[:3] == WANTED
        assert sorted(map(str, ids(chosen))) == sorted(PASSAGES)
        assert all(PASSAGES[one.id] == (one.metadata["title"], one.page_content) for one in chosen)


@each_way
def test_any_runnable_may_retrieve_and_a_compression_retriever_may_wrap_it(langchain: LangChain, way: str) -> None:
    retriever = langchain.retriever("sync")
    chain = RunnableLambda(lambda text: text.upper()) | RunnableLambda(str.title) | retriever
    compressor = langchain.component(retrieve=chain, top_n=2)
    assert ids(langchain.rerank(way, compressor, langchain.first)) == WANTED[:2]
    around = ContextualCompressionRetriever(
        base_compressor=compressor, base_retriever=RunnableLambda(lambda query: langchain.first)
    )
    assert ids(around.invoke(QUERY)) == ids(asyncio.run(around.ainvoke(QUERY))) == WANTED[:2]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", ["sync", "native"])
def test_the_retrieval_is_a_run_below_the_reranking(langchain: LangChain, is_async: bool, kind: str) -> None:
    traces = Traces()
    compressor = langchain.component(retrieve=langchain.retriever(kind), top_n=2)
    arguments: Any = (langchain.first, QUERY, [traces])
    if is_async:
        asyncio.run(compressor.acompress_documents(*arguments))
    else:
        compressor.compress_documents(*arguments)
    (run,) = traces.runs
    assert [(below.run_type, below.name) for below in run.child_runs] == [("retriever", "Titles")]
