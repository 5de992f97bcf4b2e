"""Many queries: lazy, in order of completion, a bounded number open, no result lost."""

import asyncio
import gc
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from rankr1_rag import BackendError, Ranking, Reranker
from rankr1_rag.backends import Backend
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import limited, load_balanced, retried

FIRST = "<answer>[1]</answer>"
PAIR = ["a", "b"]
Items = Iterator[tuple[str, list[str]]]
Run = Callable[[Reranker, Items], Iterator[tuple[int, Ranking | Exception]]]


def always_first() -> Reranker:
    return Reranker(Scripted(lambda _: FIRST), in_flight=4)


def awaited_async(reranker: Reranker, items: Items) -> Iterator[Any]:
    async def source() -> AsyncIterator[tuple[str, list[str]]]:
        for item in items:
            await asyncio.sleep(0)
            yield item

    return stepped(reranker.arank_many(source()))


def stepped(results: AsyncIterator[Any]) -> Iterator[Any]:
    """The same results, step by step on an event loop of their own."""
    with asyncio.Runner() as runner:

        async def one() -> Any:
            return await anext(results, None)

        try:
            while (result := runner.run(one())) is not None:
                yield result
        finally:
            runner.run(results.aclose())  # type: ignore[attr-defined]


WAYS: dict[str, Run] = {
    "rank_many": Reranker.rank_many,
    "live": lambda reranker, items: reranker.rank_many(items, live=True),
    "awaited": lambda reranker, items: stepped(reranker.arank_many(items)),
    "awaited from an async source": awaited_async,
}
all_ways = pytest.mark.parametrize("run", WAYS.values(), ids=WAYS)


@all_ways
def test_every_query_comes_back_once_with_its_index_and_the_result_of_rank(run: Run) -> None:
    reranker = Reranker(Scripted(lambda messages: FIRST.replace("1", messages[1]["content"][18])), in_flight=4)
    results = dict(run(reranker, ((f"{1 + n % 2} {n}", PAIR) for n in range(50))))
    expected = {n: reranker.rank(f"{1 + n % 2} {n}", PAIR) for n in range(50)}
    assert {n: replace(ranking, seconds=0) for n, ranking in results.items()} == {  # type: ignore[type-var]
        n: replace(ranking, seconds=0) for n, ranking in expected.items()
    }
    assert list(run(always_first(), iter([]))) == []


@all_ways
def test_a_quick_query_overtakes_a_slow_one_which_is_cancelled_when_left(run: Run) -> None:
    cancelled = threading.Event()

    async def model(messages: list[dict[str, str]]) -> str:
        if "slow" in messages[1]["content"]:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise
        return FIRST

    results = run(Reranker(Scripted(model)), iter([("slow", PAIR), ("quick", PAIR)]))
    assert next(results)[0] == 1
    results.close()  # type: ignore[attr-defined]
    assert cancelled.wait(60)


@all_ways
def test_it_reads_no_further_than_in_flight(run: Run) -> None:
    read = 0

    def source() -> Items:
        nonlocal read
        for n in range(100):
            read += 1
            yield f"query {n}", PAIR

    results = run(always_first(), source())
    assert read == 0
    next(results)
    assert 1 <= read <= 6
    for done, _ in enumerate(results, 2):
        assert read <= done + 5
    endless = run(always_first(), (("query", PAIR) for _ in iter(int, 1)))
    next(endless)
    endless.close()  # type: ignore[attr-defined]


@all_ways
def test_the_result_of_a_query_that_fails_is_its_error(run: Run) -> None:
    def model(messages: list[dict[str, str]]) -> str:
        if "bad" in messages[1]["content"]:
            raise BackendError("bad")
        return FIRST

    items = [("good", PAIR), ("bad", PAIR), ("", PAIR), ("good", [None, None]), ("good",), ("good", PAIR)]
    results = dict(run(Reranker(Scripted(model)), iter(items)))  # type: ignore[arg-type]
    kinds = [Ranking, BackendError, ValueError, TypeError, TypeError, Ranking]
    assert [type(results[n]) for n in range(6)] == kinds


@all_ways
def test_a_source_that_breaks_loses_nothing_that_was_open(run: Run) -> None:
    def source() -> Items:
        yield "first", PAIR
        yield "second", PAIR
        raise OSError("line 3 is torn")

    done = []
    with pytest.raises(OSError, match="line 3"):  # noqa: PT012
        for index, _ in run(always_first(), source()):
            done.append(index)
    assert sorted(done) == [0, 1]


@pytest.mark.parametrize("in_flight", [None, 8])
def test_queries_are_worked_on_depth_first_if_the_backend_says_what_it_computes_at_once(in_flight: int | None) -> None:
    asked: list[str] = []

    async def model(messages: list[dict[str, str]]) -> str:
        asked.append(messages[1]["content"][18:25])
        await asyncio.sleep(0.001)
        return FIRST

    reranker = Reranker(Scripted(model, capacity=1), k=3, size=3, in_flight=in_flight)
    start, seconds = time.perf_counter(), 0.0
    for place, (index, ranking) in enumerate(reranker.rank_many((f"query {n}", list("abcdefgh")) for n in range(8))):
        assert place == index
        assert (
            len(set(asked[: ranking.cost.comparisons * (index + 1)])) <= index + 2
        )  # the next one has the slot in turn
        seconds += ranking.seconds
    assert seconds < 4 * (time.perf_counter() - start)  # not eight times as much


@pytest.mark.parametrize(
    ("backend", "capacity"),
    [
        (Scripted(str, capacity=3), 3),
        (limited(Scripted(str, capacity=3), 2), 2),
        (limited(Scripted(str), 5), 5),
        (retried(Scripted(str, capacity=3)), 3),
        (load_balanced([Scripted(str, capacity=3), Scripted(str, capacity=4)]), 7),
        (load_balanced([Scripted(str, capacity=3), Scripted(str)]), 64),
        (Scripted(str), 64),
    ],
)
def test_as_many_queries_are_open_as_the_backend_computes_at_once(backend: Backend, capacity: int) -> None:
    assert Reranker(backend).plan.in_flight == capacity
    assert Reranker(backend, in_flight=9).plan.in_flight == 9


def test_a_cancelled_query_passes_its_slots_on() -> None:
    async def model(messages: list[dict[str, str]]) -> str:
        await asyncio.sleep(60 if "slow" in messages[1]["content"] else 0)
        return FIRST

    async def main() -> Ranking:
        reranker = Reranker(Scripted(model, capacity=1), size=2, in_flight=4)
        slow = [asyncio.create_task(reranker.arank("slow", list("abcdef"))) for _ in range(3)]
        quick = asyncio.create_task(reranker.arank("quick", list("abcdef")))
        await asyncio.sleep(0.05)
        for task in slow:
            task.cancel()
        return await quick

    assert asyncio.run(main()).order == tuple(range(6))


def test_live_items_come_out_while_the_source_waits() -> None:
    queries: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    queries.put("first")
    results = always_first().rank_many(((query, PAIR) for query in iter(queries.get, None)), live=True)
    assert next(results)[0] == 0
    queries.put("second")
    assert next(results)[0] == 1
    queries.put(None)
    assert list(results) == []


def test_many_rankings_leave_nothing_behind() -> None:
    def count() -> int:
        gc.collect()
        return sum(type(thing) is Ranking for thing in gc.get_objects())

    reranker = always_first()
    for n in (200, 400):
        before = count()
        for _ in reranker.rank_many((f"query {n}", PAIR) for n in range(n)):
            pass
    assert count() <= before + 1


def test_several_threads_share_one_reranker() -> None:
    reranker = always_first()
    with ThreadPoolExecutor(16) as pool:
        rankings = list(pool.map(lambda n: reranker.rank(f"q {n}", PAIR), range(16)))
    assert [ranking.order for ranking in rankings] == [(0, 1)] * 16


BARS: dict[str, Run] = {
    "rank_many": lambda reranker, items: reranker.rank_many(items, progress=True),
    "live": lambda reranker, items: reranker.rank_many(items, live=True, progress=True),
    "awaited": lambda reranker, items: stepped(reranker.arank_many(items, progress=True)),
}


@pytest.mark.parametrize("way", BARS)
def test_a_bar_on_stderr_counts_queries_comparisons_and_failures(way: str, capfd: pytest.CaptureFixture[str]) -> None:
    items: Any = [("one", PAIR), ("two", "no list"), ("three", PAIR)]
    for source, total in ((items, "3/3"), (iter(items), "3/?")):
        assert sorted(index for index, _ in BARS[way](always_first(), source)) == [0, 1, 2]
        out, shown = capfd.readouterr()
        assert out == ""
        assert all(text in shown for text in ("queries", total, "2 comparisons, 1 failed"))
    assert next(BARS[way](always_first(), items))[0] in (0, 1, 2)  # leaving early ends the bar
    gc.collect()
    assert "3/3" not in capfd.readouterr().err
