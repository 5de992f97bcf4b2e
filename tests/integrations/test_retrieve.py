"""A retriever between two hops, in both frameworks: what it finds comes back like the rest, and queries do not mix."""

import asyncio
import copy
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rankr1_rag import Passage, Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.both import Framework
from tests.integrations.conftest import PASSAGES, QUERY, WANTED, knows_best, shown

KINDS = ("sync", "native", "only sync", "only async")
each_way = pytest.mark.parametrize("way", ["sync", "async", "sync in a running loop"])
both_ways = pytest.mark.parametrize("way", ["sync", "async"])


@each_way
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_found_comes_back_whole_as_a_copy(both: Framework, way: str, kind: str) -> None:
    for one in both.items:
        both.metadata(one)["pages"] = {"from": [1, 2]}
    before, retriever, seen = copy.deepcopy(both.items), both.retriever(kind), list[Ranking]()
    chosen = both.rerank(way, both.component(retrieve=retriever, top_n=2, on_ranking=seen.append), both.first)
    assert both.ids(chosen) == WANTED[:2]
    assert 0 < both.score(chosen[1]) < both.score(chosen[0]) <= 1
    assert both.text(chosen[1]) == PASSAGES["stoker"][1]
    assert both.metadata(chosen[1]).items() >= {"title": "Bram Stoker", "pages": {"from": [1, 2]}}.items()
    assert both.items == before
    assert retriever.calls[0][1] == f"{QUERY} Dracula {PASSAGES['dracula'][1]}"
    assert (seen[0].retrieved, [one.id for one in seen[0].candidates]) == (1, [*both.ids(both.first), "stoker"])


@each_way
def test_real_retrievers_bring_the_passages_that_the_first_stage_missed(both: Framework, way: str) -> None:
    for retriever in both.real_retrievers():
        chosen = both.rerank(way, both.component(retrieve=retriever, top_n=None), both.first)
        assert both.ids(chosen)[:3] == WANTED
        assert sorted(both.ids(chosen)) == sorted(PASSAGES)
        assert all(PASSAGES[both.id(one)] == (both.metadata(one)["title"], both.text(one)) for one in chosen)


@both_ways
def test_no_candidate_is_added_twice_and_nothing_is_lost_or_mixed_up(both: Framework, way: str) -> None:
    stoker, dracula = PASSAGES["stoker"][1], PASSAGES["dracula"][1]
    texts = [("same", dracula), ("same", "another"), ("twin", "another")]
    texts += [
        ("same", dracula),  # a candidate
        ("other", dracula),  # the same text as a candidate
        ("same", stoker),  # another text with an id that is taken
        ("new", "a new one"),
        ("new", "a new one"),  # found twice
        ("new", "and one more"),
    ]
    items, seen = [both.new(*one, title="", shelf=n) for n, one in enumerate(texts)], list[Ranking]()
    component = both.component(retrieve=lambda text: items[3:], top_n=None, on_ranking=seen.append)
    chosen = both.rerank(way, component, items[:3])
    shelves = {both.metadata(one)["shelf"]: (both.id(one), both.text(one)) for one in chosen}
    assert shelves == {n: texts[n] for n in (0, 1, 2, 5, 6, 8)}
    assert len(chosen) == len(shelves) == len(seen[0].candidates)
    assert [both.text(one) for one in chosen[:2]] == [dracula, stoker]
    assert [one.id for one in seen[0].candidates] == ["same", "same", "twin", "", "new", ""]


def test_every_later_hop_retrieves_for_the_last_choice_and_the_first_hop_never(both: Framework) -> None:
    retriever, seen = both.retriever("sync"), list[Ranking]()
    chosen = both.sync(both.component(retrieve=retriever, hops=3, top_n=3, on_ranking=seen.append), both.first)
    assert both.ids(chosen) == ["dracula", "stoker", "dublin"]
    assert [text.removeprefix(QUERY).split()[0] for _, text, *_ in retriever.calls] == ["Dracula", "Bram"]
    assert seen[0].retrieved == 3
    retriever.calls.clear()
    component = both.component(retrieve=retriever, top_n=1)
    assert (both.ids(both.sync(component, both.first)), both.sync(component, [])) == (["dracula"], [])
    assert retriever.calls == []


@pytest.mark.parametrize(("kind", "how"), [("native", "async"), ("sync", "sync"), ("only sync", "sync")])
def test_an_async_method_runs_on_the_loop_of_its_caller_and_no_other_blocks_it(
    both: Framework, kind: str, how: str
) -> None:
    retriever = both.retriever(kind)
    component = both.component(retrieve=retriever, top_n=2)
    here = threading.current_thread().name
    for _ in range(2):
        assert both.ids(both.rerank("async", component, both.first)) == WANTED[:2]
        found_how, _, thread, loop = retriever.calls.pop()
        assert (found_how, loop, thread == here) == (how, both.loop if how == "async" else None, how == "async")
    assert not retriever.calls


@each_way
@pytest.mark.parametrize("kind", ["function", "generator", "coroutine function", "returns a coroutine"])
def test_a_function_of_a_text_may_find_them(both: Framework, way: str, kind: str) -> None:
    loops: list[Any] = []

    def function(text: str) -> list[Any]:
        loops.append(asyncio._get_running_loop())
        return both.titled(text)

    def generator(text: str) -> Iterator[Any]:
        yield from function(text)

    async def coroutine(text: str) -> list[Any]:
        await asyncio.sleep(0)
        return function(text)

    kinds: dict[str, Any] = {"function": function, "generator": generator, "coroutine function": coroutine}
    retrieve = kinds.get(kind, lambda text: coroutine(text))
    assert both.ids(both.rerank(way, both.component(retrieve=retrieve, top_n=2), both.first)) == WANTED[:2]
    assert (loops == [None]) == (kind in ("function", "generator"))
    if way == "async" and kind == "coroutine function":
        assert loops == [both.loop]


@each_way
def test_an_error_of_the_retriever_is_raised_as_it_is(both: Framework, way: str) -> None:
    gone = KeyError("the index is gone")

    def broken(text: str) -> list[Any]:
        raise gone

    for retrieve in (broken, both.retriever("sync", broken), both.retriever("native", broken)):
        with pytest.raises(KeyError) as raised:
            both.rerank(way, both.component(retrieve=retrieve), both.first)
        assert raised.value is gone


async def stream() -> AsyncIterator[Any]:
    yield "text"


@both_ways
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "retrieve= must return a list"),
        ("text", "retrieve= must return"),
        (stream(), r"retrieve= must return a list, .* \(got <async_generator"),
        ([Passage("p", "bare")], "item 0 is a Passage, not a "),
    ],
)
def test_anything_but_a_list_of_items_is_a_type_error(both: Framework, way: str, value: Any, problem: str) -> None:
    with pytest.raises(TypeError, match=problem + both.item.__name__ if isinstance(value, list) else problem):
        both.rerank(way, both.component(retrieve=lambda text: value), both.first)


def test_wrong_settings_are_refused_at_once(both: Framework) -> None:
    judge, retriever = Scripted(knows_best), both.retriever("sync")
    for settings, problem in (
        ({"reranker": Reranker(judge)}, "hops"),
        ({"hops": 1, "model": "m", "base_url": "http://localhost:1/v1"}, "hops"),
        ({"reranker": Reranker(judge, hops=2), "retrieve": "bm25"}, "retrieve= is a str: "),
        ({"reranker": Reranker(judge, hops=2), "retrieve": both.items}, "retrieve= is a list: "),
        ({"reranker": Reranker(judge, hops=2, retrieve=lambda _: [])}, "reranker= has a retrieve="),
        ({"reranker": Reranker(judge, hops=2), "retriever": retriever}, "did you mean 'retrieve'"),
    ):
        with pytest.raises(ValueError, match=problem):
            both.kind(**{"retrieve": retriever} | settings)
    component = both.component(retrieve=retriever)
    with pytest.raises(ValueError, match="cannot change later"):
        component.retrieve = None
    assert "Titles" not in f"{component!r}"
    one = both.kind(hops=2, retrieve=retriever, model="m", base_url="http://localhost:1/v1")
    assert (one.ranker.hops, one.ranker.retrieve) == (2, None)


def starts_and_goals(messages: Any) -> str:
    """Prefers a goal, else a start, else the first."""
    lines = shown(messages)
    wanted = [n for word in ("goal", "start") for n, line in enumerate(lines) if line.startswith(word)]
    return f"<answer>[{(wanted or [0])[0] + 1}]</answer>"


@pytest.mark.parametrize("way", ["one loop", "threads"])
def test_concurrent_queries_do_not_mix(both: Framework, way: str) -> None:
    """Each finds an item with the same id, a text that many of them share, and metadata of its own."""
    gathered, waiting, together = asyncio.Event(), list[str](), threading.Barrier(8)

    def goal(text: str) -> list[Any]:
        n = int(text.rsplit(maxsplit=1)[1])
        return [both.new("goal", f"goal {n % 2}", n=n)]

    async def awaited(text: str) -> list[Any]:
        waiting.append(text)
        if len(waiting) == 16:
            gathered.set()
        await asyncio.wait_for(gathered.wait(), 60)  # every query is between its hops now
        return goal(text)

    def blocking(text: str) -> list[Any]:
        together.wait(60)
        return goal(text)

    retrieve = awaited if way == "one loop" else blocking
    component = both.component(starts_and_goals, retrieve=retrieve, top_n=None)
    asked = [([both.new(None, text, n=n) for text in (f"start {n}", f"no {n}")], f"which goal {n}?") for n in range(16)]

    async def many() -> list[Any]:
        return await asyncio.gather(*(both.awaited(component, *one) for one in asked))

    with ThreadPoolExecutor(8) as pool:
        results = asyncio.run(many()) if way == "one loop" else pool.map(lambda one: both.sync(component, *one), asked)
        for n, chosen in enumerate(results):
            assert [both.text(one) for one in chosen] == [f"start {n}", f"goal {n % 2}", f"no {n}"]
            assert {both.metadata(one)["n"] for one in chosen} == {n}
