"""A retriever between two stages: what it finds is a node like the others, and each query has its own."""

import asyncio
import copy
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.postprocessor.rankr1 import RankR1Rerank
from llama_index.retrievers.bm25 import BM25Retriever
from pydantic import Field

from rankr1_rag import Passage, Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.conftest import PASSAGES, QUERY, WANTED, knows_best, shown
from tests.integrations.with_llama_index.conftest import ids

Found = list[NodeWithScore]
Way = Callable[[RankR1Rerank, Found], Found]


class Titles(BaseRetriever):
    """Finds the nodes whose title a text names; keeps how and where it was asked. It has the sync method only."""

    def __init__(self, nodes: list[TextNode]) -> None:
        super().__init__()
        self.nodes = nodes
        self.asked: list[tuple[str, str, str, Any]] = []

    def _find(self, how: str, text: str) -> Found:
        self.asked.append((how, text, threading.current_thread().name, asyncio._get_running_loop()))
        return [NodeWithScore(node=node, score=0.5) for node in self.nodes if node.metadata["title"] in text]

    def _retrieve(self, query_bundle: QueryBundle) -> Found:
        return self._find("sync", query_bundle.query_str)


class Native(Titles):
    """One with an async method of its own."""

    async def _aretrieve(self, query_bundle: QueryBundle) -> Found:
        await asyncio.sleep(0)
        return self._find("async", query_bundle.query_str)


class OnlySync(Titles):
    async def _aretrieve(self, query_bundle: QueryBundle) -> Found:
        raise NotImplementedError


class OnlyAsync(Native):
    def _retrieve(self, query_bundle: QueryBundle) -> Found:
        raise NotImplementedError


def sync(rerank: RankR1Rerank, nodes: Found) -> Found:
    return rerank.postprocess_nodes(nodes, query_str=QUERY)


def awaited(rerank: RankR1Rerank, nodes: Found) -> Found:
    return asyncio.run(rerank.apostprocess_nodes(nodes, query_str=QUERY))


def sync_in_a_running_loop(rerank: RankR1Rerank, nodes: Found) -> Found:
    async def cell() -> Found:
        return rerank.postprocess_nodes(nodes, query_str=QUERY)

    return asyncio.run(cell())


each_way = pytest.mark.parametrize("way", [sync, awaited, sync_in_a_running_loop])
both_ways = pytest.mark.parametrize("way", [sync, awaited])


def made(retrieve: Any, script: Any = knows_best, **settings: Any) -> RankR1Rerank:
    return RankR1Rerank(reranker=Reranker(Scripted(script), hops=2), retrieve=retrieve, **settings)


@pytest.fixture
def first(found: Found) -> Found:
    """What the first stage found: of what is wanted the first hop only."""
    return [one for one in found if one.node_id in ("whitby", "dracula", "shelley")]


@each_way
@pytest.mark.parametrize("kind", [Titles, Native, OnlySync, OnlyAsync])
def test_what_is_found_comes_back_whole(way: Way, kind: type[Titles], first: Found, nodes: list[TextNode]) -> None:
    before, retriever = copy.deepcopy(nodes), kind(nodes)
    told: list[Ranking] = []
    rerank = made(retriever, top_n=2, on_ranking=told.append)
    assert ids(made(None, top_n=2).postprocess_nodes(first, query_str=QUERY)) == ["dracula", "shelley"]
    chosen = way(rerank, first)
    assert ids(chosen) == WANTED[:2]
    assert chosen[1].node == next(node for node in before if node.node_id == "stoker")
    assert type(chosen[1].node) is TextNode
    assert 0 < chosen[1].score < chosen[0].score <= 1  # type: ignore[operator]
    assert nodes == before
    ((_, text, *_),) = retriever.asked
    assert text == f"{QUERY} Dracula source: {{'file': 'dracula.txt', 'page': 1}}\n\n{PASSAGES['dracula'][1]}"
    assert (told[0].retrieved, [one.id for one in told[0].candidates]) == (1, [*ids(first), "stoker"])


@each_way
def test_a_real_retriever_brings_what_the_first_stage_missed(way: Way, first: Found, bm25: BM25Retriever) -> None:
    chosen = way(made(bm25, top_n=None), first)
    assert ids(chosen)[:3] == WANTED
    assert sorted(ids(chosen)) == sorted(PASSAGES)
    assert all(one.node.metadata["source"]["file"] == f"{one.node_id}.txt" for one in chosen)


def test_its_old_score_and_its_reasoning_are_kept_as_for_the_others(first: Found, nodes: list[TextNode]) -> None:
    rerank = made(Titles(nodes), top_n=2, keep_retrieval_score=True, include_reasoning=True)
    stoker = sync(rerank, first)[1].node
    assert stoker.metadata["retrieval_score"] == 0.5
    assert stoker.metadata["rankr1_reasoning"] == "stoker is what is wanted"
    assert "retrieval_score" not in stoker.get_content(MetadataMode.EMBED)
    assert "retrieval_score" not in next(node for node in nodes if node.node_id == "stoker").metadata


@both_ways
def test_no_candidate_is_added_twice_and_nothing_is_lost_or_mixed_up(way: Way, first: Found) -> None:
    stoker, dracula = PASSAGES["stoker"][1], PASSAGES["dracula"][1]

    def node(id_: str, text: str, n: int) -> NodeWithScore:
        shelf = {"title": "", "shelf": n}
        hidden = ["title", "shelf"]
        return NodeWithScore(node=TextNode(id_=id_, text=text, metadata=shelf, excluded_embed_metadata_keys=hidden))

    given = [node("same", dracula, 0), node("same", "another", 1), node("twin", "another", 2)]
    later = [
        node("same", dracula, 3),  # a candidate
        node("other", dracula, 4),  # the same to whoever reads it
        node("same", stoker, 5),  # another text under an id that is taken
        node("new", "a new one", 6),
        node("new", "a new one", 7),  # found twice
        node("new", "and one more", 8),
    ]
    told: list[Ranking] = []
    chosen = way(made(lambda text: later, top_n=None, on_ranking=told.append), given)
    shelves = {one.node.metadata["shelf"]: (one.node_id, one.text) for one in chosen}
    wanted = [*given, later[2], later[3], later[5]]
    assert shelves == {one.node.metadata["shelf"]: (one.node_id, one.text) for one in wanted}
    assert len(chosen) == len(wanted) == len(told[0].candidates)
    assert [one.text for one in chosen[:2]] == [dracula, stoker]
    assert [one.id for one in told[0].candidates] == ["same", "same", "twin", "", "new", ""]


def test_every_later_stage_retrieves_for_what_was_chosen_last(first: Found, nodes: list[TextNode]) -> None:
    retriever, told = Titles(nodes), list[Ranking]()
    reranker = Reranker(Scripted(knows_best), hops=3)
    chosen = sync(RankR1Rerank(reranker=reranker, retrieve=retriever, top_n=3, on_ranking=told.append), first)
    assert ids(chosen) == ["dracula", "stoker", "dublin"]
    assert [text.removeprefix(QUERY).split()[0] for _, text, *_ in retriever.asked] == ["Dracula", "Bram"]
    assert told[0].retrieved == 3


@pytest.mark.parametrize(("kind", "how"), [(Native, "async"), (Titles, "sync"), (OnlySync, "sync")])
def test_who_awaits_has_its_async_method_on_his_own_loop_and_no_other_holds_it_up(
    kind: type[Titles], how: str, first: Found, nodes: list[TextNode]
) -> None:
    retriever = kind(nodes)
    rerank = made(retriever, top_n=2)
    loops = []

    async def ask() -> None:
        loops.append(asyncio.get_running_loop())
        assert ids(await rerank.apostprocess_nodes(first, query_str=QUERY)) == WANTED[:2]

    for _ in range(2):
        asyncio.run(ask())
    where = [(asked_how, thread, loop) for asked_how, _, thread, loop in retriever.asked]
    if how == "async":
        assert where == [("async", threading.current_thread().name, loop) for loop in loops]
    else:
        assert where == [("sync", "rankr1-borrowed", None)] * 2


@each_way
@pytest.mark.parametrize("kind", ["function", "generator", "coroutine function", "gives a coroutine"])
def test_a_function_of_a_text_may_find_them(way: Way, kind: str, first: Found, nodes: list[TextNode]) -> None:
    loops: list[Any] = []

    def function(text: str) -> Found:
        loops.append(asyncio._get_running_loop())
        return [NodeWithScore(node=node) for node in nodes if node.metadata["title"] in text]

    def generator(text: str) -> Iterator[NodeWithScore]:
        yield from function(text)

    async def coroutine(text: str) -> Found:
        await asyncio.sleep(0)
        return function(text)

    ways = {"function": function, "generator": generator, "coroutine function": coroutine}
    retrieve = ways.get(kind, lambda text: coroutine(text))
    assert ids(way(made(retrieve, top_n=2), first)) == WANTED[:2]
    assert (loops == [None]) == (kind in ("function", "generator"))


def test_a_coroutine_function_is_awaited_on_the_loop_of_whoever_awaits(first: Found) -> None:
    async def ask() -> bool:
        loops = []

        async def retrieve(text: str) -> Found:
            loops.append(asyncio.get_running_loop())
            return []

        await made(retrieve).apostprocess_nodes(first, query_str=QUERY)
        return loops == [asyncio.get_running_loop()]

    assert asyncio.run(ask())


@each_way
@pytest.mark.parametrize("kind", [Titles, Native])
def test_an_error_of_the_retriever_is_raised_as_it_is(way: Way, kind: type[Titles], first: Found) -> None:
    gone = KeyError("the index is gone")

    class Broken(kind):  # type: ignore[misc, valid-type]
        def _find(self, how: str, text: str) -> Found:
            raise gone

    def broken(text: str) -> Found:
        raise gone

    for retrieve in (Broken([]), broken):
        with pytest.raises(KeyError) as raised:
            way(made(retrieve), first)
        assert raised.value is gone


@both_ways
@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (None, "retrieve= must return a list of passages, best first .got None"),
        ("text", "retrieve= must return a list of passages, best first .got 'text'"),
        ([TextNode(text="bare")], "item 0 is a TextNode, not a NodeWithScore"),
        ([Passage("p", "bare")], "item 0 is a Passage, not a NodeWithScore"),
    ],
)
def test_what_is_no_list_of_nodes_is_told(way: Way, given: Any, problem: str, first: Found) -> None:
    with pytest.raises(TypeError, match=problem):
        way(made(lambda text: given), first)


def test_async_generators_are_told_too(first: Found) -> None:
    async def stream(text: str) -> AsyncIterator[NodeWithScore]:
        yield first[0]

    with pytest.raises(TypeError, match=r"retrieve= must return a list .* \(got <async_generator"):
        awaited(made(stream), first)


def test_wrong_settings_are_told_when_it_is_made(nodes: list[TextNode], bm25: BM25Retriever) -> None:
    judge = Scripted(knows_best)
    for settings, problem in (
        ({"reranker": Reranker(judge)}, "needs hops >= 2"),
        ({"reranker": Reranker(judge, hops=1)}, "needs hops >= 2"),
        ({"hops": 1, "model": "m", "base_url": "http://localhost:1/v1"}, "needs hops >= 2"),
        ({"reranker": Reranker(judge, hops=2), "retrieve": "bm25"}, "is a str: a BaseRetriever or a function"),
        ({"reranker": Reranker(judge, hops=2), "retrieve": nodes}, "is a list: a BaseRetriever or"),
        ({"reranker": Reranker(judge, hops=2, retrieve=lambda _: [])}, "reranker= has a retrieve="),
        ({"reranker": Reranker(judge, hops=2), "retriever": bm25}, "did you mean 'retrieve'"),
    ):
        with pytest.raises(ValueError, match=problem):
            RankR1Rerank(**{"retrieve": bm25} | settings)
    rerank = made(bm25)
    with pytest.raises(ValueError, match="frozen"):
        rerank.retrieve = None
    assert "BM25" not in repr(rerank)
    given = RankR1Rerank(hops=2, retrieve=bm25, model="m", base_url="http://localhost:1/v1")
    assert (given.ranker.hops, given.ranker.retrieve) == (2, None)


def starts_and_goals(messages: Any) -> str:
    """Wants a goal, else a start, else the first."""
    lines = shown(messages)
    wanted = [n for word in ("goal", "start") for n, line in enumerate(lines) if line.startswith(word)]
    return f"<answer>[{(wanted or [0])[0] + 1}]</answer>"


def numbered(n: int) -> tuple[Found, str]:
    texts = [f"start {n}", f"nothing {n}"]
    return [NodeWithScore(node=marked(text, n)) for text in texts], f"which goal {n}?"


def marked(text: str, n: int, **fields: Any) -> TextNode:
    return TextNode(text=text, metadata={"n": n}, excluded_embed_metadata_keys=["n"], **fields)


def goal_of(text: str) -> Found:
    """Under one id for every query, with a text that many of them share, and metadata of its own."""
    n = int(text.rsplit(maxsplit=1)[1])
    return [NodeWithScore(node=marked(f"goal {n % 2}", n, id_="goal"))]


def test_queries_at_once_on_one_loop_do_not_mix() -> None:
    gathered = asyncio.Event()
    waiting = 0

    async def retrieve(text: str) -> Found:
        nonlocal waiting
        waiting += 1
        if waiting == 20:
            gathered.set()
        await asyncio.wait_for(gathered.wait(), 30)  # every query is between its stages now
        return goal_of(text)

    rerank = made(retrieve, starts_and_goals, top_n=None)

    async def many() -> list[Found]:
        given = [numbered(n) for n in range(20)]
        return await asyncio.gather(*(rerank.apostprocess_nodes(nodes, query_str=query) for nodes, query in given))

    for n, chosen in enumerate(asyncio.run(many())):
        assert [one.text for one in chosen] == [f"start {n}", f"goal {n % 2}", f"nothing {n}"]
        assert {one.node.metadata["n"] for one in chosen} == {n}


def test_queries_at_once_in_threads_do_not_mix() -> None:
    together = threading.Barrier(8)

    def retrieve(text: str) -> Found:
        together.wait(30)
        return goal_of(text)

    rerank = made(retrieve, starts_and_goals, top_n=2)

    def ask(n: int) -> Found:
        nodes, query = numbered(n)
        return rerank.postprocess_nodes(nodes, query_str=query)

    with ThreadPoolExecutor(8) as pool:
        for n, chosen in enumerate(pool.map(ask, range(16))):
            assert [one.text for one in chosen] == [f"start {n}", f"goal {n % 2}"]
            assert {one.node.metadata["n"] for one in chosen} == {n}


def test_whoever_gives_up_cancels_the_retrieval_on_his_loop(first: Found) -> None:
    async def ask() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def endless(text: str) -> Found:
            begun.set()
            try:
                await asyncio.sleep(600)
            finally:
                ended.set()
            return []

        task = asyncio.create_task(made(endless).apostprocess_nodes(first, query_str=QUERY))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ended.wait()

    asyncio.run(asyncio.wait_for(ask(), 60))


@both_ways
def test_a_single_stage_retrieves_nothing(way: Way, first: Found, nodes: list[TextNode]) -> None:
    retriever = Titles(nodes)
    assert ids(way(made(retriever, top_n=1), first)) == ["dracula"]
    assert way(made(retriever), []) == []
    assert retriever.asked == []


def test_a_pickle_and_a_copy_retrieve_the_same(first: Found, nodes: list[TextNode]) -> None:
    rerank = made(Titles(nodes), top_n=2)
    for other in (pickle.loads(pickle.dumps(rerank)), copy.deepcopy(rerank), rerank.model_copy()):
        assert sync(other, first) == sync(rerank, first)
    assert ids(sync(rerank.model_copy(update={"retrieve": lambda text: []}), first)) == ["dracula", "shelley"]
    with pytest.raises(TypeError, match=r"retrieve=.*<lambda>.* cannot be pickled"):
        pickle.dumps(made(lambda text: []))
    live = RankR1Rerank(hops=2, retrieve=print, model="m", base_url="http://localhost:1/v1")
    with pytest.raises(TypeError, match="retrieve= is a live object"):
        live.to_dict()


class Heard(BaseEventHandler):
    events: list[Any] = Field(default_factory=list)

    def handle(self, event: BaseEvent, **_: Any) -> None:
        self.events.append(event)


@both_ways
@pytest.mark.parametrize("kind", [Titles, Native])
def test_the_retrieval_is_heard_as_any_other(way: Way, kind: type[Titles], first: Found, nodes: list[TextNode]) -> None:
    root, heard = get_dispatcher(), Heard()
    root.add_event_handler(heard)
    try:
        way(made(kind(nodes)), first)
    finally:
        root.event_handlers.remove(heard)
    (event,) = [event for event in heard.events if isinstance(event, RetrievalEndEvent)]
    assert sorted(ids(event.nodes)) == ["dracula", "stoker"]
