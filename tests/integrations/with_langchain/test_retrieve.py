"""A retriever between two stages: what it finds is a document like the others, and each query has its own."""

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_rankr1 import RankR1Rerank
from pydantic import Field

from rankr1_rag import Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.frameworks.component import REASONING
from tests.integrations.conftest import PASSAGES, QUERY, WANTED, knows_best
from tests.integrations.with_langchain.parts import BM25Retriever, Hashed, Traces, documents, ids

Way = Callable[[RankR1Rerank, list[Document]], list[Document]]


class Titles(BaseRetriever):
    """Finds the documents whose title a text names; keeps how and where it was asked. It has the sync method only."""

    documents: list[Document] = Field(default_factory=documents)
    asked: list[tuple[str, str, str, Any]] = Field(default_factory=list)

    def _find(self, how: str, text: str) -> list[Document]:
        self.asked.append((how, text, threading.current_thread().name, asyncio._get_running_loop()))
        return [document for document in self.documents if document.metadata["title"] in text]

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        return self._find("sync", query)


class Native(Titles):
    """One with an async method of its own."""

    async def _aget_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        await asyncio.sleep(0)
        return self._find("async", query)


def sync(compressor: RankR1Rerank, given: list[Document]) -> list[Document]:
    return list(compressor.compress_documents(given, QUERY))


def awaited(compressor: RankR1Rerank, given: list[Document]) -> list[Document]:
    return list(asyncio.run(compressor.acompress_documents(given, QUERY)))


def sync_in_a_running_loop(compressor: RankR1Rerank, given: list[Document]) -> list[Document]:
    async def cell() -> list[Document]:
        return list(compressor.compress_documents(given, QUERY))

    return asyncio.run(cell())


each_way = pytest.mark.parametrize("way", [sync, awaited, sync_in_a_running_loop])
both_ways = pytest.mark.parametrize("way", [sync, awaited])


def made(retrieve: Any, script: Any = knows_best, **settings: Any) -> RankR1Rerank:
    return RankR1Rerank(reranker=Reranker(Scripted(script), hops=2), retrieve=retrieve, **settings)


@pytest.fixture
def first() -> list[Document]:
    """What the first stage found: of what is wanted the first hop only."""
    return [document for document in documents() if document.id in ("whitby", "dracula", "shelley")]


@each_way
@pytest.mark.parametrize("kind", [Titles, Native])
def test_what_is_found_comes_back_whole_as_a_copy(way: Way, kind: type[Titles], first: list[Document]) -> None:
    class Own(Document):
        shelf: str = ""

    pages = {"from": [1, 2]}
    own = [Own(**dict(one), shelf=one.id) for one in documents()]
    for one in own:
        one.metadata["pages"] = copy.deepcopy(pages)
    retriever, before = kind(documents=own), copy.deepcopy(own)
    told: list[Ranking] = []
    assert ids(sync(made(None, top_n=2), first)) == ["dracula", "shelley"]
    chosen = way(made(retriever, top_n=2, include_reasoning=True, on_ranking=told.append), first)
    assert ids(chosen) == WANTED[:2]
    scores = [one.metadata["relevance_score"] for one in chosen]
    added = {"relevance_score": scores[1], REASONING: "stoker is what is wanted"}
    assert 0 < scores[1] < scores[0] <= 1
    assert chosen[1].metadata == {"title": "Bram Stoker", "pages": pages} | added
    assert isinstance(chosen[1], Own)
    assert (chosen[1].shelf, chosen[1].page_content) == ("stoker", PASSAGES["stoker"][1])
    chosen[1].metadata["pages"]["from"].clear()
    assert retriever.documents == before
    assert retriever.asked[0][1] == f"{QUERY} Dracula {PASSAGES['dracula'][1]}"
    assert (told[0].retrieved, [one.id for one in told[0].candidates]) == (1, [*ids(first), "stoker"])


@each_way
def test_real_retrievers_bring_what_the_first_stage_missed(
    way: Way, first: list[Document], first_stage: BM25Retriever
) -> None:
    store = InMemoryVectorStore(Hashed())
    store.add_documents(documents())
    for retriever in (first_stage, store.as_retriever(search_kwargs={"k": 6})):
        chosen = way(made(retriever, top_n=None), first)
        assert ids(chosen)[:3] == WANTED
        assert sorted(map(str, ids(chosen))) == sorted(PASSAGES)
        assert all(PASSAGES[str(one.id)] == (one.metadata["title"], one.page_content) for one in chosen)


@each_way
def test_any_runnable_may_find_them_and_a_compression_retriever_stand_around(way: Way, first: list[Document]) -> None:
    retriever = Titles()
    chain = RunnableLambda(lambda text: text.upper()) | RunnableLambda(str.title) | retriever
    assert ids(way(made(chain, top_n=2), first)) == WANTED[:2]
    around = ContextualCompressionRetriever(
        base_compressor=made(retriever, top_n=2), base_retriever=RunnableLambda(lambda query: first)
    )
    assert ids(around.invoke(QUERY)) == ids(asyncio.run(around.ainvoke(QUERY))) == WANTED[:2]


def test_a_pickle_and_a_copy_retrieve_the_same(first: list[Document]) -> None:
    compressor = made(Titles(), top_n=2)
    for other in (pickle.loads(pickle.dumps(compressor)), copy.deepcopy(compressor), compressor.model_copy()):
        assert sync(other, first) == sync(compressor, first)
    assert ids(sync(compressor.model_copy(update={"retrieve": lambda text: []}), first)) == ["dracula", "shelley"]
    with pytest.raises(TypeError, match=r"retrieve=.*<lambda>.* cannot be pickled"):
        pickle.dumps(made(lambda text: []))


@both_ways
@pytest.mark.parametrize("kind", [Titles, Native])
def test_the_retrieval_is_a_run_below_the_rerankings(way: Way, kind: type[Titles], first: list[Document]) -> None:
    traces, compressor = Traces(), made(kind(), top_n=2)
    if way is sync:
        compressor.compress_documents(first, QUERY, callbacks=[traces])
    else:
        asyncio.run(compressor.acompress_documents(first, QUERY, callbacks=[traces]))
    (run,) = traces.runs
    assert [(below.run_type, below.name) for below in run.child_runs] == [("retriever", kind.__name__)]
