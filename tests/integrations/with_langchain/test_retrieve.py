"""A retriever between two stages: what it finds is a document like the others, and each query has its own."""

import asyncio
import copy
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_rankr1 import RankR1Rerank
from pydantic import Field

from rankr1_rag import Passage, Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.frameworks.component import REASONING
from tests.integrations.conftest import PASSAGES, QUERY, WANTED, knows_best, shown
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


class OnlySync(Titles):
    async def _aget_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        raise NotImplementedError


class OnlyAsync(Native):
    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        raise NotImplementedError


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
@pytest.mark.parametrize("kind", [Titles, Native, OnlySync, OnlyAsync])
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


@both_ways
def test_no_candidate_is_added_twice_and_nothing_is_lost_or_mixed_up(way: Way) -> None:
    stoker, dracula = PASSAGES["stoker"][1], PASSAGES["dracula"][1]

    def document(id_: str | None, text: str, n: int) -> Document:
        return Document(text, id=id_, metadata={"shelf": n})

    given = [document(None, dracula, 0), document("same", "another", 1), document(None, "another", 2)]
    later = [
        document(None, dracula, 3),  # a candidate
        document("other", dracula, 4),  # the same to whoever reads it
        document("same", stoker, 5),  # another text under an id that is taken
        document(None, "a new one", 6),
        document(None, "a new one", 7),  # found twice
        document(None, "and one more", 8),
        document("same", "the last", 9),
    ]
    told: list[Ranking] = []
    chosen = way(made(lambda text: later, top_n=None, on_ranking=told.append), given)
    shelves = {one.metadata["shelf"]: (one.id, one.page_content) for one in chosen}
    wanted = [*given, later[2], later[3], later[5], later[6]]
    assert shelves == {one.metadata["shelf"]: (one.id, one.page_content) for one in wanted}
    assert len(chosen) == len(wanted) == len(told[0].candidates)
    assert [one.page_content for one in chosen[:2]] == [dracula, stoker]


def test_every_later_stage_retrieves_for_what_was_chosen_last(first: list[Document]) -> None:
    retriever, told = Titles(), list[Ranking]()
    reranker = Reranker(Scripted(knows_best), hops=3)
    chosen = sync(RankR1Rerank(reranker=reranker, retrieve=retriever, top_n=3, on_ranking=told.append), first)
    assert ids(chosen) == ["dracula", "stoker", "dublin"]
    assert [text.removeprefix(QUERY).split()[0] for _, text, *_ in retriever.asked] == ["Dracula", "Bram"]
    assert told[0].retrieved == 3


def test_who_awaits_has_its_async_method_on_his_own_loop(first: list[Document]) -> None:
    retriever = Native()
    compressor = made(retriever, top_n=2)
    loops = []

    async def ask() -> None:
        loops.append(asyncio.get_running_loop())
        assert ids(await compressor.acompress_documents(first, QUERY)) == WANTED[:2]

    for _ in range(2):
        asyncio.run(ask())
    where = [(how, thread, loop) for how, _, thread, loop in retriever.asked]
    assert where == [("async", threading.current_thread().name, loop) for loop in loops]


@each_way
@pytest.mark.parametrize("kind", ["function", "generator", "coroutine function", "gives a coroutine"])
def test_a_function_of_a_text_may_find_them(way: Way, kind: str, first: list[Document]) -> None:
    loops: list[Any] = []

    def function(text: str) -> list[Document]:
        loops.append(asyncio._get_running_loop())
        return [document for document in documents() if document.metadata["title"] in text]

    def generator(text: str) -> Iterator[Document]:
        yield from function(text)

    async def coroutine(text: str) -> list[Document]:
        await asyncio.sleep(0)
        return function(text)

    ways = {"function": function, "generator": generator, "coroutine function": coroutine}
    retrieve = ways.get(kind, lambda text: coroutine(text))
    assert ids(way(made(retrieve, top_n=2), first)) == WANTED[:2]
    assert (loops == [None]) == (kind in ("function", "generator"))


def test_a_coroutine_function_is_awaited_on_the_loop_of_whoever_awaits(first: list[Document]) -> None:
    async def ask() -> bool:
        loops = []

        async def retrieve(text: str) -> list[Document]:
            loops.append(asyncio.get_running_loop())
            return []

        await made(retrieve).acompress_documents(first, QUERY)
        return loops == [asyncio.get_running_loop()]

    assert asyncio.run(ask())


@each_way
@pytest.mark.parametrize("kind", [Titles, Native])
def test_an_error_of_the_retriever_is_raised_as_it_is(way: Way, kind: type[Titles], first: list[Document]) -> None:
    gone = KeyError("the index is gone")

    class Broken(kind):  # type: ignore[misc, valid-type]
        def _find(self, how: str, text: str) -> list[Document]:
            raise gone

    def broken(text: str) -> list[Document]:
        raise gone

    for retrieve in (Broken(), broken):
        with pytest.raises(KeyError) as raised:
            way(made(retrieve), first)
        assert raised.value is gone


@both_ways
@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (None, "retrieve= must return a list of passages, best first .got None"),
        ("text", "retrieve= must return a list of passages, best first .got 'text'"),
        (Document("one"), "item 0 is a tuple, not a Document"),
        ([Passage("p", "bare")], "item 0 is a Passage, not a Document"),
    ],
)
def test_what_is_no_list_of_documents_is_told(way: Way, given: Any, problem: str, first: list[Document]) -> None:
    with pytest.raises(TypeError, match=problem):
        way(made(lambda text: given), first)


def test_async_generators_are_told_too(first: list[Document]) -> None:
    async def stream(text: str) -> AsyncIterator[Document]:
        yield first[0]

    with pytest.raises(TypeError, match=r"retrieve= must return a list .* \(got <async_generator"):
        awaited(made(stream), first)


def test_wrong_settings_are_told_when_it_is_made(first_stage: BM25Retriever) -> None:
    judge = Scripted(knows_best)
    for settings, problem in (
        ({"reranker": Reranker(judge)}, "needs hops >= 2"),
        ({"hops": 1, "model": "m", "base_url": "http://localhost:1/v1"}, "needs hops >= 2"),
        ({"reranker": Reranker(judge, hops=2), "retrieve": "bm25"}, "is a str: a Runnable or a function"),
        ({"reranker": Reranker(judge, hops=2), "retrieve": documents()}, "is a list: a Runnable or"),
        ({"reranker": Reranker(judge, hops=2, retrieve=lambda _: [])}, "reranker= has a retrieve="),
        ({"reranker": Reranker(judge, hops=2), "retriever": first_stage}, "did you mean 'retrieve'"),
    ):
        with pytest.raises(ValueError, match=problem):
            RankR1Rerank(**{"retrieve": first_stage} | settings)
    compressor = made(first_stage)
    with pytest.raises(ValueError, match="frozen"):
        compressor.retrieve = None
    assert "BM25" not in f"{compressor!r} {compressor.model_dump()}"
    given = RankR1Rerank(hops=2, retrieve=first_stage, model="m", base_url="http://localhost:1/v1")
    assert (given.ranker.hops, given.ranker.retrieve) == (2, None)


def starts_and_goals(messages: Any) -> str:
    """Wants a goal, else a start, else the first."""
    lines = shown(messages)
    wanted = [n for word in ("goal", "start") for n, line in enumerate(lines) if line.startswith(word)]
    return f"<answer>[{(wanted or [0])[0] + 1}]</answer>"


def numbered(n: int) -> tuple[list[Document], str]:
    return [Document(text, metadata={"n": n}) for text in (f"start {n}", f"nothing {n}")], f"which goal {n}?"


def goal_of(text: str) -> list[Document]:
    """Without an id, with a text that many queries share, and metadata of its own."""
    n = int(text.rsplit(maxsplit=1)[1])
    return [Document(f"goal {n % 2}", metadata={"n": n})]


def test_queries_at_once_on_one_loop_do_not_mix() -> None:
    gathered = asyncio.Event()
    waiting = 0

    async def retrieve(text: str) -> list[Document]:
        nonlocal waiting
        waiting += 1
        if waiting == 20:
            gathered.set()
        await asyncio.wait_for(gathered.wait(), 30)  # every query is between its stages now
        return goal_of(text)

    compressor = made(retrieve, starts_and_goals, top_n=None)

    async def many() -> list[Any]:
        given = [numbered(n) for n in range(20)]
        return await asyncio.gather(*(compressor.acompress_documents(found, query) for found, query in given))

    for n, chosen in enumerate(asyncio.run(many())):
        assert [one.page_content for one in chosen] == [f"start {n}", f"goal {n % 2}", f"nothing {n}"]
        assert {one.metadata["n"] for one in chosen} == {n}


def test_queries_at_once_in_threads_do_not_mix() -> None:
    together = threading.Barrier(8)

    def retrieve(text: str) -> list[Document]:
        together.wait(30)
        return goal_of(text)

    compressor = made(retrieve, starts_and_goals, top_n=2)
    with ThreadPoolExecutor(8) as pool:
        for n, chosen in enumerate(pool.map(lambda n: compressor.compress_documents(*numbered(n)), range(16))):
            assert [one.page_content for one in chosen] == [f"start {n}", f"goal {n % 2}"]
            assert {one.metadata["n"] for one in chosen} == {n}


def test_whoever_gives_up_cancels_the_retrieval_on_his_loop(first: list[Document]) -> None:
    async def ask() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def endless(text: str) -> list[Document]:
            begun.set()
            try:
                await asyncio.sleep(600)
            finally:
                ended.set()
            return []

        task = asyncio.create_task(made(endless).acompress_documents(first, QUERY))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ended.wait()

    asyncio.run(asyncio.wait_for(ask(), 60))


@both_ways
def test_a_single_stage_retrieves_nothing(way: Way, first: list[Document]) -> None:
    retriever = Titles()
    assert ids(way(made(retriever, top_n=1), first)) == ["dracula"]
    assert way(made(retriever), []) == []
    assert retriever.asked == []


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
