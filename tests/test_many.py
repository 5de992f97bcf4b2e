"""Many queries: lazy, in order of completion, a bounded number open, nothing finished lost."""

import asyncio
import gc
import queue
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from rankr1_rag import BackendError, Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted

FIRST = "<answer>[1]</answer>"
PAIR = ["a", "b"]


def always_first() -> Reranker:
    return Reranker(Scripted(lambda _: FIRST), in_flight=4)


def test_every_query_comes_back_once_with_its_index() -> None:
    results = dict(always_first().rank_many((f"query {n}", PAIR) for n in range(50)))
    assert {index: ranking.query.text for index, ranking in results.items() if isinstance(ranking, Ranking)} == {
        n: f"query {n}" for n in range(50)
    }


def test_a_quick_query_overtakes_a_slow_one() -> None:
    async def model(messages: list[dict[str, str]]) -> str:
        await asyncio.sleep(0.3 if "slow" in messages[1]["content"] else 0)
        return FIRST

    order = [index for index, _ in Reranker(Scripted(model)).rank_many([("slow", PAIR), ("quick", PAIR)])]
    assert order == [1, 0]


def test_it_reads_no_further_than_in_flight() -> None:
    read = 0

    def source() -> Iterator[tuple[str, list[str]]]:
        nonlocal read
        for n in range(100):
            read += 1
            yield f"query {n}", PAIR

    results = always_first().rank_many(source())
    assert read == 0
    next(results)
    assert 1 <= read <= 4
    for done, _ in enumerate(results, 2):
        assert read <= done + 4


def test_a_query_that_fails_comes_back_as_its_error_and_the_others_go_on() -> None:
    def model(messages: list[dict[str, str]]) -> str:
        if "bad" in messages[1]["content"]:
            raise BackendError("bad")
        return FIRST

    items = [("good", PAIR), ("bad", PAIR), ("", PAIR), ("good", [None, None]), ("good",), ("good", PAIR)]
    results = dict(Reranker(Scripted(model)).rank_many(items))  # type: ignore[arg-type]
    assert [type(results[n]).__name__ for n in range(6)] == [
        "Ranking",
        "BackendError",
        "ValueError",
        "TypeError",
        "ValueError",
        "Ranking",
    ]


def test_a_source_that_breaks_loses_nothing_that_was_open() -> None:
    def source() -> Iterator[tuple[str, list[str]]]:
        yield "first", PAIR
        yield "second", PAIR
        raise OSError("line 3 is torn")

    done = []
    with pytest.raises(OSError, match="line 3"):  # noqa: PT012
        for index, _ in always_first().rank_many(source()):
            done.append(index)
    assert sorted(done) == [0, 1]


def test_leaving_early_cancels_what_is_open() -> None:
    cancelled = threading.Event()

    async def model(messages: list[dict[str, str]]) -> str:
        if "slow" in messages[1]["content"]:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise
        return FIRST

    results = Reranker(Scripted(model)).rank_many([("slow", PAIR), ("quick", PAIR)])
    assert next(results)[0] == 1
    results.close()  # type: ignore[attr-defined]
    assert cancelled.wait(5)


def test_live_items_come_out_while_the_source_waits() -> None:
    asked: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    asked.put("first")
    items = ((query, PAIR) for query in iter(asked.get, None))
    results = always_first().rank_many(items, live=True)
    assert next(results)[0] == 0
    asked.put("second")
    assert next(results)[0] == 1
    asked.put(None)
    assert list(results) == []


def test_live_items_that_break_lose_nothing_and_leaving_early_ends_them() -> None:
    def source() -> Iterator[tuple[str, list[str]]]:
        yield "first", PAIR
        raise OSError("torn")

    results = always_first().rank_many(source(), live=True)
    assert next(results)[0] == 0
    with pytest.raises(OSError, match="torn"):
        next(results)
    endless = always_first().rank_many((("query", PAIR) for _ in iter(int, 1)), live=True)
    next(endless)
    endless.close()  # type: ignore[attr-defined]


def test_nothing_gives_nothing() -> None:
    assert list(always_first().rank_many([])) == []


async def gather(reranker: Reranker, items: object) -> dict[int, Ranking | Exception]:
    return {index: ranking async for index, ranking in reranker.arank_many(items)}  # type: ignore[arg-type]


def test_arank_many_takes_a_plain_or_an_async_iterable() -> None:
    async def source() -> AsyncIterator[tuple[str, list[str]]]:
        for n in range(20):
            await asyncio.sleep(0)
            yield f"query {n}", PAIR

    assert sorted(asyncio.run(gather(always_first(), source()))) == list(range(20))
    assert sorted(asyncio.run(gather(always_first(), [("q", PAIR)] * 20))) == list(range(20))


def test_arank_many_reads_no_further_than_in_flight_and_cancels_when_left() -> None:
    read = 0

    async def source() -> AsyncIterator[tuple[str, list[str]]]:
        nonlocal read
        for n in range(100):
            read += 1
            yield f"query {n}", PAIR

    async def leave() -> None:
        results = always_first().arank_many(source())
        await anext(results)
        await asyncio.sleep(0.05)
        assert read <= 6
        await results.aclose()  # type: ignore[attr-defined]

    asyncio.run(leave())


def test_arank_many_tells_of_a_broken_source_after_what_was_open() -> None:
    async def source() -> AsyncIterator[tuple[str, list[str]]]:
        yield "first", PAIR
        raise OSError("torn")

    async def ask() -> None:
        done = []
        with pytest.raises(OSError, match="torn"):  # noqa: PT012
            async for index, _ in always_first().arank_many(source()):
                done.append(index)
        assert done == [0]

    asyncio.run(ask())


def test_many_rankings_leave_nothing_behind() -> None:
    reranker = always_first()
    for _ in reranker.rank_many((f"query {n}", PAIR) for n in range(200)):
        pass
    gc.collect()
    before = sum(type(thing) is Ranking for thing in gc.get_objects())
    for _ in reranker.rank_many((f"query {n}", PAIR) for n in range(400)):
        pass
    gc.collect()
    assert sum(type(thing) is Ranking for thing in gc.get_objects()) <= before + 1


def test_several_threads_share_one_reranker() -> None:
    reranker = always_first()
    rankings: list[Ranking] = []
    threads = [threading.Thread(target=lambda: rankings.append(reranker.rank("q", PAIR))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rankings) == 16
