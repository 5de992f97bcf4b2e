"""Callers that block an event loop do not wait for work that only the blocked loop can finish."""

import asyncio
import copy
import pickle
import threading

import pytest

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.concurrency.event_loop import PerLoop, blocked_loop, caller, private_loop
from rankr1_rag.concurrency.foreign_loop import on_loop

FIRST = "<answer>[1]</answer>"


def test_a_sync_call_inside_a_loop_does_not_wait_for_a_query_that_needs_this_loop() -> None:
    async def model(messages: list[dict[str, str]]) -> str:
        if "first" in messages[1]["content"]:
            who = caller.get()
            assert who is not None
            holds.set()
            await on_loop(who, released.wait)
        return FIRST

    async def main() -> None:
        first = asyncio.create_task(reranker.arank("first", ["a", "b"]))
        await asyncio.to_thread(holds.wait, 60)  # it holds the only place now, and waits for this loop
        assert reranker.rank("second", ["a", "b"]).order == (0, 1)
        assert [index for index, _ in reranker.rank_many([("third", ["a", "b"])])] == [0]
        assert [index for index, _ in begun] == [1, 2]  # begun outside of this loop
        released.set()
        await first

    holds, released = threading.Event(), asyncio.Event()
    reranker = Reranker(Scripted(model), in_flight=1)
    begun = reranker.rank_many([("fourth", ["a", "b"])] * 3)
    next(begun)
    asyncio.run(main())


def test_a_nested_call_keeps_the_root_caller_and_the_blocked_loop() -> None:
    seen = []

    async def inner(_: object) -> str:
        seen.append((caller.get() and caller.get().loop, blocked_loop.get()))  # type: ignore[union-attr]
        return FIRST

    async def outer(_: object) -> str:
        await Reranker(Scripted(inner)).arank("q", ["a", "b"])
        return FIRST

    async def main() -> asyncio.AbstractEventLoop:
        await Reranker(Scripted(outer)).arank("q", ["a", "b"])
        Reranker(Scripted(outer)).rank("q", ["a", "b"])
        return asyncio.get_running_loop()

    loop = asyncio.run(main())
    Reranker(Scripted(outer)).rank("q", ["a", "b"])
    assert seen == [(loop, None), (None, loop), (None, None)]


async def value(values: PerLoop[list[int]]) -> list[int]:
    return values.get()


@pytest.mark.parametrize("per_caller", [False, True])
def test_each_loop_and_with_per_caller_each_blocked_loop_has_one_value(per_caller: bool) -> None:
    values = PerLoop[list[int]](list, per_caller=per_caller)
    common = private_loop().call(value(values))

    async def main() -> list[list[int]]:
        found = [values.get(), private_loop().call(value(values)), private_loop().call(value(values))]
        assert len(values.take()) == (3 if per_caller else 2)
        return found

    own, first, second = asyncio.run(main())
    assert own is not common
    assert first is second
    assert (first is common) == (not per_caller)
    assert values.take() == []
    for other in (copy.copy(values), pickle.loads(pickle.dumps(values))):
        assert private_loop().call(value(other)) is not private_loop().call(value(values))
