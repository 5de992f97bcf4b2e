"""The queue keeps its bounds, serves the keys in turn and loses no place, whoever leaves."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.server.queue import FairQueue, QueueFull


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def entered(queue: FairQueue, keys: str) -> tuple[list[asyncio.Task[None]], list[str]]:
    """Tasks that entered the queue in this order, and a list of the keys that got a place, as they get it."""
    got: list[str] = []

    async def enter(key: str) -> None:
        await queue.enter(key)
        got.append(key)

    tasks = []
    for key in keys:
        tasks.append(asyncio.create_task(enter(key)))
        await settled()
    return tasks, got


async def test_the_keys_are_served_in_turn() -> None:
    queue = FairQueue(1, 10)
    tasks, got = await entered(queue, "aaaabbc")
    for _ in tasks:
        queue.done(1.0)
        await settled()
    assert "".join(got) == "aabcaba"
    assert (queue.open, queue.waiting) == (0, 0)


async def test_a_full_queue_refuses_the_key_that_waits_most() -> None:
    queue = FairQueue(1, 3)
    tasks, _ = await entered(queue, "aaaa")
    with pytest.raises(QueueFull):
        await queue.enter("a")
    more, _ = await entered(queue, "b")
    assert isinstance(tasks[3].exception(), QueueFull)
    assert not more[0].done()
    more += (await entered(queue, "c"))[0]
    with pytest.raises(QueueFull) as full:
        await queue.enter("c")
    assert 1 <= int(full.value.headers["retry-after"]) <= 60
    for task in [*tasks, *more]:
        task.cancel()


async def test_the_place_of_a_query_that_was_just_cancelled_is_free() -> None:
    queue = FairQueue(1, 3)
    tasks, _ = await entered(queue, "aaaa")
    tasks[3].cancel()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await queue.enter("b")  # before the cancelled task has left
    assert queue.waiting == 2
    for task in tasks:
        task.cancel()


async def test_no_room_is_refused_at_once() -> None:
    queue = FairQueue(1, 0)
    await queue.enter("a")
    with pytest.raises(QueueFull):
        await queue.enter("b")
    queue.done(0.1)
    await queue.enter("b")


@given(
    st.integers(1, 3),
    st.integers(0, 4),
    st.lists(
        st.tuples(st.sampled_from(["enter", "leave", "cancel", "done and cancel"]), st.integers(0, 9)), max_size=60
    ),
)
def test_no_place_is_lost_or_given_twice(most: int, room: int, steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        queue, tasks, inside = FairQueue(most, room), list[asyncio.Task[None]](), [0]

        async def visit(key: str, leave: asyncio.Event) -> None:
            await queue.enter(key)
            inside[0] += 1
            assert inside[0] <= most
            try:
                await leave.wait()
            finally:
                inside[0] -= 1
                queue.done(0.1)

        leaves = list[asyncio.Event]()
        for step, number in steps:
            if step == "enter":
                leaves.append(asyncio.Event())
                tasks.append(asyncio.create_task(visit("abc"[number % 3], leaves[-1])))
            elif tasks:
                if "cancel" in step:
                    if "done" in step:
                        leaves[(number + 1) % len(tasks)].set()
                    tasks[number % len(tasks)].cancel()
                else:
                    leaves[number % len(tasks)].set()
            if number % 2:
                await settled()
            assert queue.waiting <= room
        for leave in leaves:
            leave.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        await settled()
        assert (inside[0], queue.open, queue.waiting, len(queue.queues)) == (0, 0, 0, 0)
        assert all(task.cancelled() or isinstance(task.exception(), QueueFull | None) for task in tasks)

    asyncio.run(play())
